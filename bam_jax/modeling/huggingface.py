"""Loads and saves weights in Hugging Face's format.

Loading, saving and shape checks use the same table of names, `Family.modules`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import hashlib
from pathlib import Path
import re
from typing import NamedTuple

import flax.traverse_util
import numpy as np
import safetensors

from bam_jax import errors
from bam_jax.modeling import bert
from bam_jax.modeling import entries
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import gelu
from bam_jax.modeling import weight_files

# Type of a module -> (our name, Hugging Face's name) of each parameter. Kernels
# are transposed.
_PARAMETERS = {
  'embed': (('embedding', 'weight'),),
  'norm': (('scale', 'weight'), ('bias', 'bias')),
  'dense': (('kernel', 'weight'), ('bias', 'bias')),
  'scale': (('scale', 'weight'),),
  'kernel': (('kernel', 'weight'),),
}

# Tensors that no family loads: a buffer that holds 0, 1, 2, ..., and heads of
# fine-tuning, by the first part of their names.
_POSITION_IDS = 'embeddings.position_ids'
_HEADS = 'classifier', 'qa_outputs', 'heads'

# Entries of every exported config.json. transformers writes them, and some
# programs have no defaults for missing entries.
_WRITTEN = {
  'initializer_range': family.INITIALIZER_RANGE,
  'bos_token_id': None,
  'eos_token_id': None,
  'tie_word_embeddings': True,
}

_MOST_LAYERS = 1 << 10


class _Name(NamedTuple):
  """Names of a parameter: `path` in our tree, `tensor` in Hugging Face's files.

  `shape` has one letter per axis of the parameter; see `Family.modules`. The
  first `skipped` rows of the tensor are not part of the parameter. `is_part`
  returns whether an encoder has the parameter; None: every encoder has it.
  """

  path: tuple[str, ...]
  tensor: str
  shape: str
  skipped: int
  is_part: Callable[[family.EncoderConfig], bool] | None

  def from_tensor(self, value: np.ndarray) -> np.ndarray:
    """Converts the tensor from a file to the parameter."""
    return self._transpose(value)[self.skipped :]

  def to_tensor(self, value: np.ndarray) -> np.ndarray:
    """Converts the parameter to a tensor; skipped rows are 0."""
    value = self._transpose(value)
    padding = [(self.skipped, 0)] + [(0, 0)] * (value.ndim - 1)
    return np.pad(value, padding) if self.skipped else value

  def _transpose(self, value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value.T if self.path[-1] == 'kernel' else value)


def load_config(path: Path) -> dict[str, object]:
  """Reads config.json; returns `EncoderConfig` arguments without dropout.

  Raises:
    errors.UserError: the file is missing, or the encoder cannot be loaded.
  """
  file = Path(path) / 'config.json'
  values = weight_files.read_json(file)
  try:
    return _read_config(values)
  except ValueError as e:
    raise errors.UserError(
      f'{file}: {e}; choose another config.model.init'
    ) from e


def _read_config(values: Mapping[str, object]) -> dict[str, object]:
  """Converts config.json; raises ValueError if an entry is not supported."""
  name = entries.choice(values, 'model_type', bert.BERT.name, families.FAMILIES)
  result, of = {'family': name}, families.FAMILIES[name]
  for key, value in of.required.items():
    entries.choice(values, key, value, [value])
  for ours, theirs in of.sizes.items():
    most = _MOST_LAYERS if ours == 'num_layers' else entries.MOST
    unused = of.unused_positions if ours == 'max_positions' else 0
    size = entries.integer(values, theirs, None, unused + 1, most)
    result[ours] = size - unused
  if result['hidden_size'] % result['num_heads']:
    raise ValueError(
      f'{of.sizes["num_heads"]} {result["num_heads"]} does not divide'
      f' {of.sizes["hidden_size"]} {result["hidden_size"]}'
    )
  if key := of.settings.get('layer_norm_eps'):
    result['layer_norm_eps'] = eps = entries.share(values, key, 1e-12)
    if not eps:
      raise ValueError(f'{key} is 0, no number above 0')
  if key := of.settings.get('activation'):
    result['activation'] = entries.choice(values, key, 'gelu', gelu.ACTIVATIONS)
  return result | of.read(values)


def save_config(config: family.EncoderConfig, pad_id: int) -> dict[str, object]:
  """Returns the content of config.json, which `load_config` reads back."""
  of = families.FAMILIES[config.family]
  sizes = {theirs: getattr(config, ours) for ours, theirs in of.sizes.items()}
  if 'max_positions' in of.sizes:
    sizes[of.sizes['max_positions']] += of.unused_positions
  return {
    'pad_token_id': pad_id,
    **of.required,
    **sizes,
    'architectures': [f'{of.class_prefix}Model'],
    **{theirs: getattr(config, ours) for ours, theirs in of.settings.items()},
    **_WRITTEN,
    **of.written,
    **of.write(config),
    'dtype': 'float32',
    'torch_dtype': 'float32',  # its name in transformers up to 4.55
  }


def load_params(
  path: Path, config: family.EncoderConfig, layers: Sequence[int] = ()
) -> dict[str, object]:
  """Loads encoder and pooler from a directory of weights.

  Args:
    path: directory with config.json and model.safetensors (float32, float16,
      bfloat16 or float64; in one file or in shards with an index).
    config: the encoder, which determines the shapes of the parameters.
    layers: for each of the `config.num_layers` layers, its number in the files;
      empty: the first layers.

  Returns:
    {'encoder': ..., 'pooler': ...}, float32 NumPy arrays in the tree of
    `MultiTaskModel`. 'pooler' is missing if the files contain no pooler, or if
    `config.pooling` uses no pooler.

  Raises:
    errors.UserError: a tensor is missing, unknown, or of the wrong shape or
      type; or there are too few layers; or a file is missing or damaged.
  """
  of = families.FAMILIES[config.family]
  stored = _stored_tensors(path, of)
  count = load_config(path)['num_layers']
  layers = layers or range(config.num_layers)
  if max(layers) >= count:
    raise errors.UserError(
      f'{path}: has {count} layers, fewer than {config.num_layers}; lower'
      ' config.model.num_layers'
    )
  known = list(_names(of, range(count)))
  surplus = stored.keys() - {name.tensor for name in known}
  if surplus:
    raise errors.UserError(
      f'{path}: tensor {min(surplus)} is not part of a {of.name} encoder of'
      f' {count} layers; choose another config.model.init'
    )
  wanted = [
    name
    for name in _names(of, layers)
    if not name.is_part or name.is_part(config)
  ]
  has_pooler = any(tensor.startswith('pooler.') for tensor in stored)
  if config.pooling not in of.pools or not has_pooler:
    wanted = [name for name in wanted if name.path[0] != 'pooler']
  params = {
    name.path: _load_tensor(name, stored, path, config) for name in wanted
  }
  for unused in _unused(of):
    params[unused] = np.ones(config.hidden_size, np.float32)
  return flax.traverse_util.unflatten_dict(params)


def save_params(
  params: Mapping[str, object], of: family.Family = bert.BERT
) -> dict[str, np.ndarray]:
  """Converts parameters to tensors with Hugging Face's names.

  `params` is {'encoder': ..., 'pooler': ...}; 'pooler' may be absent.

  Raises:
    ValueError: `params` lacks a parameter of the table of names, or has a
      parameter that the table lacks.
  """
  flat = flax.traverse_util.flatten_dict(params)
  for unused in _unused(of):
    del flat[unused]
  count = sum(key.startswith('layer_') for key in params['encoder'])
  names = [
    name
    for name in _names(of, range(count))
    if name.path[0] in params and (not name.is_part or name.path in flat)
  ]
  different = flat.keys() ^ {name.path for name in names}
  if different:
    raise ValueError(f'no tensor, or no parameter, for {min(different)}')
  return {
    name.tensor: name.to_tensor(np.asarray(flat[name.path])) for name in names
  }


def weights_digest(path: Path) -> str:
  """Returns the hexadecimal sha256 of all weight files, concatenated."""
  digest = hashlib.sha256()
  for file in weight_files.find_files(Path(path)):
    with file.open('rb') as stream:
      while block := stream.read(1 << 20):
        digest.update(block)
  return digest.hexdigest()


def _unused(of: family.Family) -> list[tuple[str, ...]]:
  """Returns paths of norm scales that the first layer does not use."""
  return [
    ('encoder', *module.replace('{i}', 'layer_0').split('/'), 'scale')
    for module in of.unused_at_first
  ]


def _names(of: family.Family, layers: Sequence[int]) -> Iterator[_Name]:
  """Yields a `_Name` for each parameter that an encoder may have.

  `layers` are the numbers, in Hugging Face's files, of the encoder's layers.
  """
  for ours, theirs, kind, shape in of.modules:
    in_layer = ours.startswith('{i}')
    for here, there in enumerate(layers) if in_layer else ((0, 0),):
      if here == 0 and ours in of.unused_at_first:
        continue
      module = ours.replace('{i}', f'layer_{here}')
      if module.split('/')[0] != 'pooler':
        module = f'encoder/{module}'
      tensor = theirs.replace('{i}', of.layer_name.replace('{i}', str(there)))
      for leaf, suffix in _PARAMETERS[kind]:
        yield _Name(
          (*module.split('/'), leaf),
          f'{tensor}.{suffix}',
          shape if leaf in ('embedding', 'kernel') else shape[-1],
          of.unused_positions if shape[0] == 'P' else 0,
          of.optional.get(ours),
        )


def _load_tensor(
  name: _Name,
  stored: Mapping[str, tuple[Path, str]],
  path: Path,
  config: family.EncoderConfig,
) -> np.ndarray:
  """Loads one parameter as float32 and checks its shape."""
  if name.tensor not in stored:
    raise errors.UserError(
      f'{path}: tensor {name.tensor} is missing; get the weights again'
    )
  file, key = stored[name.tensor]
  sizes = {
    'V': config.vocab_size,
    'P': config.max_positions + name.skipped,
    'Y': config.type_vocab_size,
    'D': config.hidden_size,
    'F': config.intermediate_size,
  }
  sizes |= {
    letter: size(config)
    for letter, size in families.FAMILIES[config.family].axes.items()
  }
  order = -1 if name.path[-1] == 'kernel' else 1
  wanted = [sizes[letter] for letter in name.shape[::order]]
  with safetensors.safe_open(file, 'numpy') as tensors:
    found = tensors.get_slice(key)
    shape, kind = list(found.get_shape()), found.get_dtype()
    if shape != wanted:
      raise errors.UserError(
        f'{file}: tensor {key} has shape {shape}, but config.json requires'
        f' {wanted}; get both files again'
      )
    if kind not in ('F32', 'F16', 'BF16', 'F64'):
      raise errors.UserError(
        f'{file}: tensor {key} is of type {kind}; convert it to F32'
      )
    return name.from_tensor(tensors.get_tensor(key).astype(np.float32))


def _stored_tensors(
  path: Path, of: family.Family
) -> dict[str, tuple[Path, str]]:
  """Finds tensors: name in `Family.modules` -> (file, name in the file)."""
  result, heads_pooler = {}, {}
  # Name of a pooler module in models with a head -> its name in the encoder.
  poolers = {
    theirs: ours
    for names in of.heads.values()
    for ours, theirs in names.items()
    if ours.startswith('pooler.')
  }
  for file in weight_files.find_files(path):
    for key in weight_files.tensor_names(file):
      name = key.removeprefix(of.tensor_prefix)
      # TensorFlow called LayerNorm's parameters gamma and beta.
      name = re.sub(r'\.gamma$', '.weight', name)
      name = re.sub(r'\.beta$', '.bias', name)
      module, _, leaf = name.rpartition('.')
      if module in poolers:
        heads_pooler[f'{poolers[module]}.{leaf}'] = (file, key)
        continue
      first = name.partition('.')[0]
      if name == _POSITION_IDS or first in (*_HEADS, *of.dropped):
        continue
      if name in result:
        raise errors.UserError(
          f'{file}: tensors {result[name][1]} and {key} are the same parameter;'
          ' remove one of them'
        )
      result[name] = (file, key)
  # If both have a pooler, the head's is used: the encoder's was not trained.
  return result | heads_pooler
