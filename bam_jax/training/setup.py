"""Makes what all runs of a plan share: tokenizer, encoder, programs."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import logging
import os
from pathlib import Path
import sys

import jax
import jax.numpy as jnp
import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import schema
from bam_jax.data import features
from bam_jax.data import tokenizer_files
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import huggingface
from bam_jax.modeling import kernels
from bam_jax.modeling import layers
from bam_jax.tasks import demo
from bam_jax.tasks import task as task_lib
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import programs as programs_lib


def configure_jax(config: config_lib.Config, workdir: Path) -> None:
  """Process-wide settings; call it before anything runs on a device.

  Compiled programs are kept in the work directory, so that a rerun starts
  without compiling.
  """
  if config.train.deterministic:
    flags = os.environ.get('XLA_FLAGS', '')
    os.environ['XLA_FLAGS'] = f'{flags} --xla_gpu_deterministic_ops=true'
  # The thread that makes the batches shares Python's lock with the one that
  # dispatches the steps, which may be 2 ms apart; Python's default of 5 ms
  # would have them wait for each other.
  sys.setswitchinterval(5e-4)
  jax.config.update('jax_compilation_cache_dir', str(workdir / 'compiled'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 1)


@dataclasses.dataclass(frozen=True)
class Encoder:
  """The encoder that every run starts from.

  Attributes:
    config: its sizes.
    tokenizer: the vocabulary that its embeddings are for.
    weights: where its pretrained weights are; None: random ones.
    digest: sha256 of the weights, and of the vocabulary where that is another;
      empty for random ones.
    description: for the report.
    pieces: for each id of the tokenizer, the rows of the pretrained table whose
      mean it starts from; None: the row of that id.
  """

  config: family.EncoderConfig
  tokenizer: features.Tokenizer
  weights: Path | None
  digest: str
  description: str
  pieces: Sequence[np.ndarray] | None = None

  def load_params(self, layers: Sequence[int]) -> dict[str, object]:
    """Pretrained encoder and pooler; empty for random weights.

    Args:
      layers: as for `huggingface.load_params`.
    """
    if not self.weights:
      return {}
    if self.pieces is None:
      return huggingface.load_params(self.weights, self.config, layers)
    size = huggingface.load_config(self.weights)['vocab_size']
    stored = dataclasses.replace(self.config, vocab_size=size)
    params = huggingface.load_params(self.weights, stored, layers)
    words = params['encoder']['embeddings']['word']
    words['embedding'] = np.stack(
      [words['embedding'][ids].mean(axis=0) for ids in self.pieces]
    )
    return params


def load_encoder(config: config_lib.Config) -> Encoder:
  """Finds the pretrained encoder, or sizes a random one, as configured."""
  model = config.model
  init, _, pin = model.init.partition('#sha256=')
  if init:
    try:
      path = huggingface.find(init, huggingface.CONFIG_FILES)
    except errors.UserError as e:
      if model.if_missing == 'error':
        raise
      logging.warning('%s', e)
      logging.warning(
        'training from RANDOM weights: scores will be far below those of a'
        ' pretrained encoder'
      )
      return _random_encoder(config, f'random weights ({init} is not there)')
    # What cannot be loaded is refused before its weights are fetched.
    huggingface.load_config(path)
    path = huggingface.find(init)
    sizes = huggingface.load_config(path)
    digest = huggingface.weights_digest(path)
    if pin and pin != digest:
      raise errors.UserError(
        f'config.model.init: the weights of {init} have sha256 {digest}, not'
        f' {pin}; install the pinned version, or drop #sha256=... to use these'
      )
    tokenizer = features.Tokenizer.from_dir(path)
    # An id beyond the table would silently read another word's embedding.
    if tokenizer.vocab_size > sizes['vocab_size']:
      raise errors.UserError(
        f'{path}: its tokenizer has {tokenizer.vocab_size} ids, its embeddings'
        f' {sizes["vocab_size"]}; get both from one model'
      )
    description = f'{init} (sha256 {digest[:16]})' + _layers(model.layers)
    pieces = None
    if model.init_vocab:
      own, tokenizer = tokenizer, _other_tokenizer(model, tokenizer)
      pieces = own.pieces(tokenizer)
      # The same file makes other embeddings for other tokens.
      digest = schema.digest([digest, tokenizer.fingerprint])
      sizes['vocab_size'] = tokenizer.vocab_size
      description += f', {tokenizer.vocab_size} other tokens'
    return Encoder(
      config=_encoder_config(config, sizes),
      tokenizer=tokenizer,
      weights=path,
      digest=digest,
      description=description,
      pieces=pieces,
    )
  if model.init_vocab:
    raise errors.UserError(
      f'config.model.init_vocab={model.init_vocab}: takes the place of the'
      ' vocabulary of config.model.init, which is empty; set that, or give'
      ' config.model.vocab'
    )
  return _random_encoder(config, 'random weights')


def load_tokenizer(config: config_lib.Config) -> features.Tokenizer:
  """The tokenizer of `load_encoder`; weights are neither needed nor fetched.

  Raises:
    errors.UserError: there is none.
  """
  init = config.model.init.partition('#sha256=')[0]
  if init:
    try:
      path = huggingface.find(init, huggingface.TOKENIZER_FILES)
    except errors.UserError:
      if config.model.if_missing == 'error':
        raise
    else:
      tokenizer = features.Tokenizer.from_dir(path)
      if config.model.init_vocab:
        tokenizer = _other_tokenizer(config.model, tokenizer)
      return tokenizer
  return _random_tokenizer(config.model)


def _random_encoder(config: config_lib.Config, description: str) -> Encoder:
  model = config.model
  presets = families.presets()
  if model.arch not in presets:
    raise errors.UserError(
      f'config.model.arch: {model.arch!r} is none of {", ".join(presets)}'
    )
  tokenizer = _random_tokenizer(model)
  sizes = dict(families.presets()[model.arch]) | {
    'vocab_size': tokenizer.vocab_size
  }
  return Encoder(
    config=_encoder_config(config, sizes),
    tokenizer=tokenizer,
    weights=None,
    digest='',
    description=f'{description}, {model.arch}',
  )


def _random_tokenizer(model: config_lib.ModelConfig) -> features.Tokenizer:
  """The tokenizer of a random encoder."""
  if model.init_vocab:
    words = _read_vocab('init_vocab', model.init_vocab)
  elif model.vocab:
    words = _read_vocab('vocab', model.vocab)
  else:
    words = demo.vocabulary()
  return features.Tokenizer.from_vocab(words, lowercase=True)


def _other_tokenizer(
  model: config_lib.ModelConfig, own: features.Tokenizer
) -> features.Tokenizer:
  """That of `model.init_vocab`, which cuts words as the pretrained one."""
  return own.with_vocab(_read_vocab('init_vocab', model.init_vocab))


def _read_vocab(field: str, file: str) -> list[str]:
  try:
    return tokenizer_files.read_vocab(Path(file))
  except (OSError, ValueError) as e:
    raise errors.UserError(
      f'config.model.{field}: {file} cannot be read ({e}); give a BERT'
      " vocab.txt, or ''"
    ) from e


def _layers(layers: Sequence[int]) -> str:
  return f', layers {", ".join(map(str, layers))}' if layers else ''


def _encoder_config(
  config: config_lib.Config, sizes: Mapping[str, object]
) -> family.EncoderConfig:
  model = config.model
  sizes = dict(sizes)
  if model.num_layers:
    if model.num_layers > sizes['num_layers']:
      raise errors.UserError(
        f'config.model.num_layers={model.num_layers}: the encoder has'
        f' {sizes["num_layers"]}; give at most that many'
      )
    sizes['num_layers'] = model.num_layers
  if model.layers:
    _check_layers(model, sizes['num_layers'])
    sizes['num_layers'] = len(model.layers)
  result = family.EncoderConfig(
    **sizes,
    dropout_embedding=model.dropout_embedding,
    dropout_attention=model.dropout_attention,
    dropout_hidden=model.dropout_hidden,
    dropout_head=model.dropout_head,
  )
  if config.data.max_length > result.max_positions:
    raise errors.UserError(
      f'config.data.max_length={config.data.max_length}: the encoder has'
      f' {result.max_positions} positions; give at most that many'
    )
  return result


def _check_layers(model: config_lib.ModelConfig, count: int) -> None:
  """Raises where `model.layers` are not of the encoder's `count` layers."""
  where = f'config.model.layers={model.layers}'
  if model.num_layers:
    raise errors.UserError(
      f'{where}: and num_layers={model.num_layers} say which layers to keep;'
      ' give either'
    )
  if not model.init:
    raise errors.UserError(
      f'{where}: are of pretrained weights, and config.model.init is empty; set'
      ' it, or give config.model.num_layers'
    )
  for layer in model.layers:
    if not 0 <= layer < count:
      raise errors.UserError(
        f'{where}: there is no layer {layer}, as the encoder has {count},'
        f' numbered from 0 to {count - 1}'
      )


class Setup:
  """The compiled steps of a configuration's model, and its initial weights.

  Attributes:
    programs: the compiled steps; shared by all runs of a plan.
  """

  def __init__(
    self,
    config: config_lib.Config,
    tasks: task_lib.TaskTable,
    encoder: Encoder,
  ):
    dtype = config.model.dtype
    if dtype == 'auto':
      on_cpu = jax.default_backend() == 'cpu'
      dtype = 'float32' if on_cpu else 'bfloat16'
    mesh = mesh_lib.make_mesh(config.mesh)
    platform = kernels.of_device(mesh.devices.flat[0])
    model = heads.MultiTaskModel(
      config=encoder.config,
      num_tasks=len(tasks),
      num_outputs=tasks.num_outputs,
      token_heads=tasks.token_heads,
      token_outputs=tasks.token_outputs,
      dtype=jnp.dtype(dtype),
      remat=config.model.remat,
      mesh=mesh,
      platform=platform if config.model.kernels or platform == 'cpu' else '',
    )
    self.programs = programs_lib.Programs(model, tasks, config, mesh)
    pretrained = encoder.load_params(config.model.layers)
    if pretrained and 'pooler' not in pretrained:
      logging.warning(
        '%s has no pooler: it starts from random weights', config.model.init
      )
    # Once for all seeds.
    self._pretrained = layers.stack(pretrained) if pretrained else {}

    def draw(seed: np.uint32) -> dict[str, object]:
      params = heads.init_params(model, jax.random.key(seed))
      return {k: v for k, v in params.items() if k not in self._pretrained}

    # The little that pretrained weights leave open is a small program, and
    # nothing else is drawn.
    self._draw = jax.jit(draw) if self._pretrained else draw

  def initial_params(self, seed: int) -> dict[str, object]:
    """Pretrained encoder and pooler, heads drawn by the seed.

    Returns:
      Host arrays, the layers stacked as in a train state; not to be changed:
      what is pretrained is the same arrays for every seed.
    """
    drawn = jax.device_get(self._draw(np.uint32(seed)))
    return drawn | self._pretrained if self._pretrained else layers.stack(drawn)
