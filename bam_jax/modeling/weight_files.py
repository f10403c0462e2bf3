"""Files of a directory of weights.

Only safetensors files are read: they hold numbers, and unlike a pickle can
hold no code.
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
# Names of files that an error repeats.
_SHOWN = 5


def find_files(path: Path) -> list[Path]:
  """The safetensors files of a directory, in a fixed order.

  Raises:
    errors.UserError: there are none, or the index names one that is not there.
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
    names = sorted({str(name) for name in shards.values()})
    there = {file.name for file in path.iterdir() if file.is_file()}
    for name in names:
      if name not in there:
        raise errors.UserError(
          f'{index}: names the shard {name!r}, which is not in the same'
          ' directory; get the weights again'
        )
    return [path / name for name in names]
  names = [file.name for file in path.iterdir()] if path.is_dir() else []
  raise cannot_load(str(path), names, str(path), str(path))


def are_in(path: Path) -> bool:
  """Whether a directory holds weights that `find_files` finds."""
  return (path / _WEIGHTS).is_file() or (path / _INDEX).is_file()


def cannot_load(
  where: str, names: Iterable[str], source: str, target: str
) -> errors.UserError:
  """What a directory or repository without safetensors files holds instead.

  Args:
    where: that is shown for it.
    names: of its files.
    source: its path or name, as transformers takes it.
    target: the beginning of the name of a directory for what is converted.
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
  # The class that wrote them has no weights besides, which would be random.
  command = errors.python_command(
    f'import transformers as t; c = t.AutoConfig.from_pretrained({source});'
    ' getattr(t, (c.architectures or [""])[0], t.BertModel)'
    f'.from_pretrained({source}).save_pretrained({quoted});'
    f' t.AutoTokenizer.from_pretrained({source}).save_pretrained({quoted})',
    {'torch': 'torch', 'transformers': 'transformers'},
  )
  return errors.UserError(
    f'{where}: holds {pickles[0]} and no {_WEIGHTS}; that is a pickle, and no'
    f' pickle is loaded; convert it: {command}, then set'
    f' config.model.init={target}'
  )


def tensor_names(file: Path) -> list[str]:
  """Names of the tensors in a safetensors file.

  Raises:
    errors.UserError: the file is damaged. The header's size and every offset
      are checked against the file before anything is allocated.
  """
  try:
    with safetensors.safe_open(file, 'numpy') as tensors:
      return list(tensors.keys())
  except safetensors.SafetensorError as error:
    raise errors.UserError(
      f'{file}: no sound safetensors file ({error}); get it again'
    ) from error


def read_json(file: Path) -> dict[str, object]:
  """A JSON object from a file.

  Raises:
    errors.UserError: no such file, or no JSON object in it.
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
      f'{file}: cannot be read: {error.strerror}; mend that'
    ) from error
  except ValueError as error:
    raise errors.UserError(
      f'{file}: no JSON ({error}); get it again'
    ) from error
