"""Loads the encoder and tokenizer that all runs of a plan start from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import functools
import logging
from pathlib import Path

import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import schema
from bam_jax.data import features
from bam_jax.data import tokenizer_files
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import huggingface
from bam_jax.modeling import pooling
from bam_jax.modeling import weight_sources
from bam_jax.runtime import phases
from bam_jax.tasks import demo


@dataclasses.dataclass(frozen=True)
class Encoder:
  """The encoder that every run starts from.

  Attributes:
    config: sizes, dropout rates and pooling.
    load_tokenizer: returns `tokenizer`, which only the first call loads.
    weights: directory of the pretrained weights; None: random weights.
    digest: sha256 of the weights; if `config.model.init_vocab` is set, combined
      with the new vocabulary's fingerprint; empty for random weights.
    description: one line for the report.
    pieces: for each id of a new vocabulary, the ids of the pretrained tokens
      whose mean embedding initialises it; None: the pretrained vocabulary.
  """

  config: family.EncoderConfig
  load_tokenizer: Callable[[], features.Tokenizer]
  weights: Path | None
  digest: str
  description: str
  pieces: Sequence[np.ndarray] | None = None

  @property
  @phases.phase(phases.START)
  def tokenizer(self) -> features.Tokenizer:
    """The encoder's tokenizer, loaded on first use.

    Some commands, such as a report, do not need it, and loading takes a second.

    Raises:
      errors.UserError: the tokenizer is missing or does not fit the encoder.
    """
    return self.load_tokenizer()

  def load_params(self, layers: Sequence[int]) -> dict[str, object]:
    """Loads the pretrained encoder and pooler; returns {} for random weights.

    `layers` are the numbers of the layers to keep; empty: the first layers.
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
  """Finds the pretrained encoder, or configures a random encoder.

  Raises:
    errors.UserError: weights or vocabulary are missing or do not fit the
      configuration.
  """
  model = config.model
  init, _, pin = model.init.partition('#sha256=')
  if not init:
    if model.init_vocab:
      raise errors.UserError(
        f'config.model.init_vocab={model.init_vocab}: replaces the vocabulary'
        ' of a pretrained model, and config.model.init names none; set'
        ' config.model.init, or use config.model.vocab for random weights'
      )
    return _configure(_random_encoder(model), config)
  path = weight_sources.find(init, weight_sources.CONFIG_FILES)
  # If the model cannot be loaded, this raises before the weights are fetched.
  huggingface.load_config(path)
  return _configure(_pretrained_encoder(model, init, pin), config)


def load_tokenizer(config: config_lib.Config) -> features.Tokenizer:
  """Loads the same tokenizer as `load_encoder`, without fetching weights.

  Raises:
    errors.UserError: the tokenizer is missing.
  """
  model = config.model
  init = model.init.partition('#sha256=')[0]
  if not init:
    return _random_tokenizer(model)
  path = weight_sources.find(init, weight_sources.TOKENIZER_FILES)
  return _replace_vocab(features.Tokenizer.from_dir(path), model)


def check_max_length(config: config_lib.Config) -> None:
  """Checks that the encoder has positions for the longest inputs.

  Fetches no weights.

  Raises:
    errors.UserError: the encoder has too few positions, or its config.json
      cannot be read.
  """
  init = config.model.init.partition('#sha256=')[0]
  if init:
    path = weight_sources.find(init, weight_sources.CONFIG_FILES)
    positions = huggingface.load_config(path)['max_positions']
  else:
    positions = _random_sizes(config.model, 1).max_positions
  errors.raise_first(_find_missing_positions(config, positions))


def _random_sizes(
  model: config_lib.ModelConfig, vocab_size: int
) -> family.EncoderConfig:
  presets = families.presets()
  errors.raise_first(
    errors.find_unknown('config.model.arch', [model.arch], presets)
  )
  sizes = presets[model.arch] | {'vocab_size': vocab_size}
  return family.EncoderConfig(**sizes)


def _random_encoder(model: config_lib.ModelConfig) -> Encoder:
  tokenizer = _random_tokenizer(model)
  encoder = _random_sizes(model, tokenizer.vocab_size)
  description = f'random weights, {model.arch}'
  return Encoder(encoder, lambda: tokenizer, None, '', description)


def _pretrained_encoder(
  model: config_lib.ModelConfig, init: str, pin: str
) -> Encoder:
  """Loads a pretrained encoder; checks its digest if `pin` is not empty."""
  path = weight_sources.find(init)
  sizes = huggingface.load_config(path)
  digest = huggingface.weights_digest(path)
  if pin and pin != digest:
    raise errors.UserError(
      f'config.model.init: the weights of {init} have sha256 {digest}, not'
      f' {pin}; install the pinned version, or drop #sha256=... to use these'
    )
  load_own = functools.cache(
    functools.partial(_load_own_tokenizer, path, dict(sizes))
  )
  load_tokenizer = functools.cache(lambda: _replace_vocab(load_own(), model))
  description = f'{init} (sha256 {digest[:16]})'
  if model.layers:
    description += f', layers {", ".join(map(str, model.layers))}'
  pieces = None
  if model.init_vocab:
    tokenizer = load_tokenizer()
    pieces = load_own().pieces(tokenizer)
    # With other tokens, the same weights give other embeddings.
    digest = schema.digest([digest, tokenizer.fingerprint])
    description += f', {tokenizer.vocab_size} other tokens'
    sizes['vocab_size'] = tokenizer.vocab_size
  encoder = family.EncoderConfig(**sizes)
  return Encoder(encoder, load_tokenizer, path, digest, description, pieces)


def _load_own_tokenizer(
  path: Path, sizes: Mapping[str, object]
) -> features.Tokenizer:
  """Loads an encoder's tokenizer; raises if it does not fit the encoder."""
  tokenizer = features.Tokenizer.from_dir(path)
  errors.raise_first(_find_tokenizer_mistakes(path, sizes, tokenizer))
  return tokenizer


def _find_tokenizer_mistakes(
  path: Path, sizes: Mapping[str, object], tokenizer: features.Tokenizer
) -> Iterator[str]:
  """Yields a message for each mismatch between a tokenizer and an encoder."""
  of = families.FAMILIES[sizes['family']]
  # The embedding of an id beyond the table would be NaN.
  if tokenizer.vocab_size > sizes['vocab_size']:
    yield (
      f'{path}: the tokenizer has {tokenizer.vocab_size} tokens, but the model'
      f' has embeddings for {sizes["vocab_size"]}; get tokenizer and weights'
      ' from the same model'
    )
  # Other programs compute positions from the padding id.
  pad_id = of.required.get('pad_token_id', tokenizer.pad_id)
  if tokenizer.pad_id != pad_id:
    yield (
      f'{path}: its tokenizer pads with the id {tokenizer.pad_id}, and'
      f' {of.name} encoders with {pad_id}; get tokenizer and weights from the'
      ' same model'
    )
  if tokenizer.num_separators > of.max_separators:
    yield (
      f'{path}: its tokenizer makes [CLS] A [SEP] [SEP] B [SEP] of two texts,'
      f' which no {of.name} encoder reads; get tokenizer and weights from the'
      ' same model'
    )


def _configure(encoder: Encoder, config: config_lib.Config) -> Encoder:
  """Applies the configured pooling, number of layers and dropout rates."""
  model, sizes = config.model, encoder.config
  pooling_name = _choose_pooling(model, encoder)
  errors.raise_first(_find_mistakes(config, sizes, pooling_name))
  description = encoder.description
  if pooling_name != 'cls':
    description += f', {pooling_name} pooling'
  of = families.FAMILIES[sizes.family]
  rates = {name: getattr(model, name) for name in sizes.dropout_rates()}
  layers = model.layers or range(model.num_layers or sizes.num_layers)
  chosen = dataclasses.replace(
    of.keep_layers(sizes, layers),
    pooling=pooling_name,
    **{n: of.dropout if rate < 0 else rate for n, rate in rates.items()},
  )
  return dataclasses.replace(encoder, config=chosen, description=description)


def _find_mistakes(
  config: config_lib.Config, sizes: family.EncoderConfig, pooling_name: str
) -> Iterator[str]:
  """Yields a message for each setting that does not fit the encoder."""
  model, count = config.model, sizes.num_layers
  of = families.FAMILIES[sizes.family]
  if model.num_layers > count:
    yield (
      f'config.model.num_layers={model.num_layers}: the encoder has {count}'
      ' layers; give at most that many'
    )
  needs_mean = {
    f'data.bi_encoder={config.data.bi_encoder}': config.data.bi_encoder,
    f'model.head_init={model.head_init}': model.head_init == 'linear_probe',
  }
  for setting, is_set in needs_mean.items():
    if is_set and pooling_name != 'mean':
      yield (
        f'config.{setting}: needs mean pooling, and the pooling is'
        f' {pooling_name}; set config.model.pooling=mean'
      )
  if model.head_init == 'linear_probe' and pooling_name in of.pools:
    yield (
      'config.model.head_init=linear_probe: is a head on the mean itself, and'
      f' heads of {of.name} encoders come after a dense layer; set'
      ' config.model.head_init=truncated_normal'
    )
  for name in sizes.dropout_rates():
    rate = getattr(model, name)
    if -1 < rate < 0:
      yield (
        f'config.model.{name}={rate}: is not a rate; give 0 to 0.99, or -1 for'
        f' that of {of.name} encoders'
      )
  where = f'config.model.layers={model.layers}'
  if of.unused_at_first and 0 in model.layers[1:]:
    yield (
      f'{where}: layer 0 of {of.name} encoders has no norm before its'
      ' attention, so it can only be the first; give it first, or leave it out'
    )
  if model.layers and model.num_layers:
    yield (
      f'{where}: config.model.num_layers={model.num_layers} chooses layers'
      ' too; set only one of the two'
    )
  if model.layers and not model.init:
    yield (
      f'{where}: chooses layers of a pretrained model, and config.model.init'
      ' names none; set config.model.init, or use config.model.num_layers for'
      ' random weights'
    )
  for layer in model.layers:
    if not 0 <= layer < count:
      yield (
        f'{where}: the encoder has no layer {layer}; give numbers from 0 to'
        f' {count - 1}'
      )
  yield from _find_missing_positions(config, sizes.max_positions)


def _find_missing_positions(
  config: config_lib.Config, positions: int
) -> Iterator[str]:
  """Yields a message if inputs may be longer than the encoder can read."""
  if config.data.max_length > positions:
    yield (
      f'config.data.max_length={config.data.max_length}: the encoder has'
      f' {positions} positions; give at most that many'
    )


def _choose_pooling(model: config_lib.ModelConfig, encoder: Encoder) -> str:
  """Returns the pooling, `cls` or `mean`, and logs the reason."""
  stated, file = 'cls', None
  try:
    if encoder.weights:
      stated, file = pooling.load(encoder.weights)
      if not file and encoder.config.pooling != stated:
        stated, file = encoder.config.pooling, encoder.weights / 'config.json'
  except errors.UserError:
    if model.pooling == 'auto':
      raise
  if model.pooling == 'auto':
    reason = f'{file} states it' if file else 'the weights state none'
    logging.info('pooling: %s (%s)', stated, reason)
    return stated
  if file and stated != model.pooling:
    logging.info(
      'pooling: %s, but %s states %s; config.model.pooling=auto uses that',
      *(model.pooling, file, stated),
    )
  return model.pooling


def _random_tokenizer(model: config_lib.ModelConfig) -> features.Tokenizer:
  field = 'init_vocab' if model.init_vocab else 'vocab'
  words = _read_vocab(model, field) or demo.vocabulary()
  return features.Tokenizer.from_vocab(words, lowercase=True)


def _replace_vocab(
  tokenizer: features.Tokenizer, model: config_lib.ModelConfig
) -> features.Tokenizer:
  words = _read_vocab(model, 'init_vocab')
  if words and not tokenizer.is_word_piece:
    raise errors.UserError(
      f'config.model.init_vocab={model.init_vocab}: replaces vocabularies of'
      f' WordPiece, and that of {model.init} is none; leave it empty'
    )
  return tokenizer.with_vocab(words) if words else tokenizer


def _read_vocab(model: config_lib.ModelConfig, field: str) -> list[str] | None:
  """Reads the vocabulary file that a field names; None if it names no file."""
  file = getattr(model, field)
  if not file:
    return None
  try:
    return tokenizer_files.read_vocab(Path(file))
  except (OSError, ValueError) as e:
    raise errors.UserError(
      f'config.model.{field}: {file} cannot be read ({e}); give the path of a'
      " BERT model's vocab.txt, or '' for none"
    ) from e
