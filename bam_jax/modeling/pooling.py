"""Reads and writes the files in which a checkpoint states its pooling.

These are files of sentence-transformers. `modules.json` names the directory of
the pooling, by default `1_Pooling`. The config.json in that directory states
the pooling's mode. The directory `2_Dense` contains a linear layer that is
applied to the pooled vector.
"""

import json
from pathlib import Path

from bam_jax import errors
from bam_jax import files
from bam_jax.modeling import weight_files

MODULES = 'modules.json'
DENSE = '2_Dense'
_DIRECTORY = '1_Pooling'
_PREFIX = 'pooling_mode_'
# sentence-transformers' name of a mode -> the value of config.model.pooling.
_MODES = {
  'cls': 'cls', 'cls_token': 'cls', 'mean': 'mean', 'mean_tokens': 'mean'
}  # fmt: skip
_REMEDY = 'set config.model.pooling to cls or mean'


def load(path: Path) -> tuple[str, Path | None]:
  """Finds the pooling with which the checkpoint in a directory was trained.

  Returns:
    `cls` or `mean`, and the file that states it; `cls` and None if the
    checkpoint states no pooling.

  Raises:
    errors.UserError: a file cannot be read, or states another pooling.
  """
  directory = _find_directory(path)
  file = path / directory / 'config.json'
  if not directory or not (file.is_file() or (path / MODULES).is_file()):
    return 'cls', None
  if not file.is_file():
    raise errors.UserError(
      f'{path / MODULES}: names {directory}, but {file} is missing; get the'
      f' model again, or {_REMEDY}'
    )
  values = weight_files.read_json(file)
  stated = values.get('pooling_mode')
  modes = stated if isinstance(stated, list) else [stated] if stated else []
  modes += [
    key.removeprefix(_PREFIX)
    for key, value in values.items()
    if key.startswith(_PREFIX) and value is True
  ]
  names = ' and '.join(map(str, modes)) or 'none'
  if len(modes) != 1 or names not in _MODES:
    raise errors.UserError(
      f'{file}: the pooling is {names}, but only cls or mean can be computed;'
      f' {_REMEDY}'
    )
  return _MODES[names], file


def describe_mean(size: int, outputs: int = 0) -> dict[str, object]:
  """Returns the files that declare mean pooling: file name -> JSON value.

  Args:
    size: size of the hidden states.
    outputs: number of outputs of a linear layer on the mean; 0: no such layer.
      The caller writes the layer's parameters to `DENSE`/model.safetensors.
  """
  directories = {'Transformer': '', 'Pooling': _DIRECTORY}
  result: dict[str, object] = {
    f'{_DIRECTORY}/config.json': {
      'word_embedding_dimension': size,
      f'{_PREFIX}cls_token': False,
      f'{_PREFIX}mean_tokens': True,
      f'{_PREFIX}max_tokens': False,
      f'{_PREFIX}mean_sqrt_len_tokens': False,
    },
  }
  if outputs:
    directories['Dense'] = DENSE
    result[f'{DENSE}/config.json'] = {
      'in_features': size,
      'out_features': outputs,
      'bias': True,
      'activation_function': 'torch.nn.modules.linear.Identity',
    }
  result[MODULES] = [
    {
      'idx': i,
      'name': str(i),
      'path': path,
      'type': f'sentence_transformers.models.{name}',
    }
    for i, (name, path) in enumerate(directories.items())
  ]
  return result


def _find_directory(path: Path) -> str:
  """Returns the name of the pooling's directory; '' if there is no pooling."""
  file = path / MODULES
  if not file.is_file():
    return _DIRECTORY
  try:
    modules = json.loads(files.load_text(file))
    found = [
      module['path']
      for module in modules
      if module['type'].rpartition('.')[2] == 'Pooling'
    ]
  except Exception as e:  # The file may hold any JSON value.
    raise errors.UserError(
      f'{file}: not a list of modules ({type(e).__name__}); get it again, or'
      f' {_REMEDY}'
    ) from e
  name = found[0] if found else ''
  # A path must not lead out of the model's directory.
  if not isinstance(name, str) or '..' in Path(name).parts:
    raise errors.UserError(
      f'{file}: {name!r} is not a directory of the model; get it again, or'
      f' {_REMEDY}'
    )
  return name.strip('/')
