"""Finds pretrained weights in a directory, a Python package or the hub."""

from collections.abc import Sequence
import importlib.util
from pathlib import Path
import re

from bam_jax import errors
from bam_jax.data import tokenizer_files
from bam_jax.modeling import pooling
from bam_jax.modeling import weight_files

_WEIGHTS = 'model*.safetensors'
CONFIG_FILES = ('config.json',)
# config.json is one of them, because it may name the tokenizer's class.
TOKENIZER_FILES = (
  *CONFIG_FILES,
  'vocab.txt',
  'vocab.json',
  'merges.txt',
  'tokenizer*.json',
  'special_tokens_map.json',
  'added_tokens.json',
  *tokenizer_files.SENTENCE_PIECE,
)
_FILES = (
  _WEIGHTS,
  'model.safetensors.index.json',
  *TOKENIZER_FILES,
  pooling.MODULES,
  '*/config.json',  # The pooling has its own directory.
)
_NO_ACCESS = (
  'correct the name, or, if the model is private or gated, run `hf auth login`'
  ' or set HF_TOKEN'
)
# HTTP status of the hub -> how to fix it.
_REMEDIES = {
  401: _NO_ACCESS,
  403: _NO_ACCESS,
  404: _NO_ACCESS,
  429: 'wait and run the command again, or set HF_TOKEN for more requests',
}


def find(init: str, wanted: Sequence[str] = _FILES, where: str = '') -> Path:
  """Finds the directory of the weights that `config.model.init` names.

  Args:
    init: a directory; `package:NAME/DIR`, the directory DIR of an installed
      Python package, whose code is not run; or a model's name on the hub.
    wanted: patterns of the files that are fetched from the hub.
    where: beginning of error messages; if empty, they begin with
      `config.model.init=...`.

  Raises:
    errors.UserError: the directory, package or model cannot be found or
      fetched, or weights are wanted and the model has no safetensors file.
  """
  where = where or f'config.model.init={init!r}'
  if init.startswith('package:'):
    return _find_in_package(init.removeprefix('package:'), where)
  try:
    path = Path(init).expanduser()
  except RuntimeError as e:
    raise errors.UserError(
      f'{where}: ~ is not known here ({e}); give the whole path'
    ) from e
  if path.is_dir():
    return path
  if not re.fullmatch(r'\w[\w.-]*(/\w[\w.-]*)?', init):
    raise errors.UserError(f'{where}: no such directory; correct the path')
  return _find_on_hub(init, where, wanted)


def _find_in_package(name: str, where: str) -> Path:
  package, _, directory = name.partition('/')
  if not package.isidentifier():
    raise errors.UserError(
      f'{where}: {package!r} is not a package name; give package:NAME/DIR'
    )
  spec = importlib.util.find_spec(package)
  if spec is None or not spec.submodule_search_locations:
    raise errors.UserError(
      f'{where}: no package {package} is installed; run'
      f' `pip install --no-deps {package.replace("_", "-")}`'
    )
  path = Path(spec.submodule_search_locations[0]) / directory
  if not path.is_dir():
    raise errors.UserError(
      f'{where}: the package has no directory {path}; correct the path'
    )
  return path


def _find_on_hub(name: str, where: str, wanted: Sequence[str]) -> Path:
  import huggingface_hub  # Slow to import, and few runs need it.

  try:
    path = Path(
      huggingface_hub.snapshot_download(name, allow_patterns=list(wanted))
    )
    if _WEIGHTS not in wanted or weight_files.are_in(path):
      return path
    names = huggingface_hub.HfApi().list_repo_files(name, revision=path.name)
  except Exception as error:  # From huggingface_hub, HTTP client or system.
    cause = error
    # After a failed request, huggingface_hub reports that its cache is empty.
    # The cause of that error is the error of the request.
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
      cause = error.__cause__
    lines = [line.strip() for line in str(cause).splitlines()]
    lines = [x for x in lines if x and not x.startswith('For more information')]
    # The first line may contain only the status.
    reason = ' '.join(lines[:2]) or type(cause).__name__
    status = getattr(getattr(cause, 'response', None), 'status_code', None)
    remedy = _REMEDIES.get(status) or (
      f'where the hub can be reached run `hf download {name} --local-dir DIR`,'
      ' then give DIR'
    )
    raise errors.UserError(
      f'{where}: no such directory, and the hub does not provide it'
      f' ({reason}); {remedy}'
    ) from error
  raise weight_files.cannot_load(where, names, name, name.split('/')[-1])
