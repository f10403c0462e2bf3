"""Files of a directory of weights.

Only safetensors files are read: they hold numbers, and unlike a pickle can
hold no code.
"""

from pathlib import Path

import safetensors

from bam_jax import errors
from bam_jax import files


def find_files(path: Path) -> list[Path]:
  """The safetensors files of a directory, in a fixed order.

  Raises:
    errors.UserError: there are none, or the index names one that is not there.
  """
  index = path / 'model.safetensors.index.json'
  if (path / 'model.safetensors').is_file():
    return [path / 'model.safetensors']
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
  pickle = path / 'pytorch_model.bin'
  if pickle.is_file():
    raise errors.UserError(
      f'{pickle}: is a pickle, and no pickle is loaded; where torch is'
      ' installed convert it: python -c "from transformers import BertModel;'
      f" BertModel.from_pretrained('{path}').save_pretrained('NEW_DIR')\""
    )
  raise errors.UserError(
    f'{path}: holds no model.safetensors; get the weights again'
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
    return files.load_json(file)
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
