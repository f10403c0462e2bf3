"""Finds and checks the files of a directory of weights.

Only safetensors files are read: unlike a pickle, they cannot hold code.
"""

from collections.abc import Iterable
import json
from pathlib import Path
import re

import safetensors

from bam_jax import errors
from bam_jax import files

_WEIGHTS = 'model.safetensors'
_INDEX = 'model.safetensors.index.json'
_PICKLE = re.compile(r'pytorch_model(-\d+-of-\d+)?\.bin')
_SHOWN = 5  # maximum number of file names in an error message


def find_files(path: Path) -> list[Path]:
  """Returns the safetensors files of a directory in a fixed order.

  Raises:
    errors.UserError: there is no such file, or a file that the index names is
      missing.
  """
  index = path / _INDEX
  if (path / _WEIGHTS).is_file():
    return [path / _WEIGHTS]
  if index.is_file():
    shards = read_json(index).get('weight_map')
    if not isinstance(shards, dict) or not shards:
      raise errors.UserError(
        f'{index}: has no weight_map; get the weights again'
      )
    names = {str(name) for name in shards.values()}
    # Names are compared, not opened, so no name leads to another directory.
    missing = names - {file.name for file in path.iterdir() if file.is_file()}
    if missing:
      raise errors.UserError(
        f'{index}: the shard {min(missing)!r} is not in the same directory; get'
        ' the weights again'
      )
    return [path / name for name in sorted(names)]
  names = [file.name for file in path.iterdir()] if path.is_dir() else []
  raise cannot_load(str(path), names, str(path), str(path))


def are_in(path: Path) -> bool:
  """Whether a directory holds safetensors weights."""
  return (path / _WEIGHTS).is_file() or (path / _INDEX).is_file()


def cannot_load(
  where: str, names: Iterable[str], source: str, target: str
) -> errors.UserError:
  """Makes the error for a directory or repository without safetensors files.

  Args:
    where: the directory or setting that the message begins with.
    names: names of the files in the directory or repository.
    source: the path or hub name to pass to transformers' `from_pretrained`.
    target: the message tells the user to save the converted weights in the
      directory `TARGET-safetensors`.
  """
  names = sorted(names)
  pickles = [name for name in names if _PICKLE.fullmatch(name)]
  if not pickles:
    shown = ', '.join(names[:_SHOWN]) + (', ...' if names[_SHOWN:] else '')
    return errors.UserError(
      f'{where}: holds no {_WEIGHTS}, only {shown or "nothing"}; get the'
      ' weights again, or choose another config.model.init'
    )
  target = f'{target}-safetensors'
  source, quoted = (
    json.dumps(text, ensure_ascii=False) for text in (source, target)
  )
  needs = {'torch': 'torch', 'transformers': 'transformers'}
  if any(name.endswith('.model') for name in names):
    needs['sentencepiece'] = 'sentencepiece'
  # The command uses the class that wrote the weights, because another class
  # could add random weights.
  command = errors.python_command(
    f'import transformers as t; c = t.AutoConfig.from_pretrained({source});'
    ' getattr(t, (c.architectures or [""])[0], t.AutoModel)'
    f'.from_pretrained({source}).save_pretrained({quoted});'
    f' t.AutoTokenizer.from_pretrained({source}).save_pretrained({quoted})',
    needs,
  )
  return errors.UserError(
    f'{where}: holds {pickles[0]} and no {_WEIGHTS}; pickles are not loaded,'
    f' since they can run code; convert it: {command}, then set'
    f' config.model.init={target}'
  )


def tensor_names(file: Path) -> list[str]:
  """Returns the names of the tensors in a safetensors file.

  Raises:
    errors.UserError: the file is damaged. safetensors checks the header's size
      and every offset against the file before it allocates memory.
  """
  try:
    with safetensors.safe_open(file, 'numpy') as tensors:
      return list(tensors.keys())
  except safetensors.SafetensorError as error:
    raise errors.UserError(
      f'{file}: damaged safetensors file ({error}); get it again'
    ) from error


def read_json(file: Path) -> dict[str, object]:
  """Reads a JSON object.

  Raises:
    errors.UserError: the file is missing, unreadable or not a JSON object.
  """
  try:
    return files.parse_json(files.load_text(file))
  except FileNotFoundError:
    raise errors.UserError(
      f'{file}: no such file; config.model.init must name a directory of'
      ' Hugging Face weights'
    ) from None
  except OSError as error:
    raise errors.UserError(
      f'{file}: cannot be read: {error.strerror}; make it readable'
    ) from error
  except ValueError as error:
    raise errors.UserError(
      f'{file}: not a JSON object ({error}); get it again'
    ) from error
