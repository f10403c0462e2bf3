"""What a configuration starts from, and what is refused before training."""

import os
from pathlib import Path
import shutil
import subprocess
import sys

import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import registry
from bam_jax.modeling import huggingface
from bam_jax.modeling import pretrained
from bam_jax.tasks import demo
from bam_jax.training import setup as setup_lib

_GOLDEN = Path(__file__).parents[1] / 'modeling' / 'golden' / 'deep'


@pytest.fixture
def weights(tmp_path) -> Path:
  """A checkpoint of 3 layers with a vocabulary that fills its table."""
  for name in ('config.json', 'model.safetensors'):
    shutil.copy(_GOLDEN / name, tmp_path)
  _write_vocabulary(tmp_path, huggingface.load_config(tmp_path)['vocab_size'])
  return tmp_path


def _write_vocabulary(path: Path, size: int) -> None:
  words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]']
  words += [f'w{i}' for i in range(size - len(words))]
  (path / 'vocab.txt').write_text('\n'.join(words) + '\n')


def _config(path: Path, **changes) -> config_lib.Config:
  config = config_lib.default_config()
  config.tasks = tuple(demo.TASKS)
  config.data.max_length = 8
  config.model.init = str(path)
  config.update_from_flattened_dict(changes)
  return config_lib.from_config_dict(config)


def test_a_run_starts_from_the_pretrained_layers(weights):
  config = _config(weights, **{'model.num_layers': 2})
  encoder = pretrained.load_encoder(config)
  setup = setup_lib.Setup(config, registry.resolve(config), encoder)
  one, same, other = map(setup.initial_params, (1, 1, 2))
  expected = huggingface.load_params(weights, encoder.config)
  assert sorted(one['encoder']) == ['embeddings', 'layers']
  for key in ('query', 'value'):
    np.testing.assert_array_equal(
      one['encoder']['layers']['attention'][key]['kernel'][1],
      expected['encoder']['layer_1']['attention'][key]['kernel'],
    )
  # The heads are drawn by the seed.
  kernel = one['heads']['kernel']
  np.testing.assert_array_equal(kernel, same['heads']['kernel'])
  assert not np.array_equal(kernel, other['heads']['kernel'])


@pytest.mark.parametrize('head_init', ['truncated_normal', 'glorot_uniform'])
def test_heads_start_as_configured(weights, head_init):
  """Oracle: the moments of both distributions, over 40 seeds."""
  config = _config(weights, **{'model.head_init': head_init})
  tasks = registry.resolve(config)
  setup = setup_lib.Setup(config, tasks, pretrained.load_encoder(config))
  heads = [setup.initial_params(seed)['heads'] for seed in range(40)]
  kernels = np.stack([head['kernel'] for head in heads])  # [40, T, D, C]
  assert not any(head['bias'].any() for head in heads)
  outputs = [task.num_outputs for task in tasks.tasks]
  assert sorted(set(outputs)) == [1, 2, 3]
  for task, count in enumerate(outputs):
    drawn = kernels[:, task, :, :count]
    if head_init == 'glorot_uniform':
      # TensorFlow's dense layer: uniform to sqrt(6 / (inputs + outputs)).
      limit = np.sqrt(6 / (drawn.shape[1] + count))
      assert 0.98 * limit < np.abs(drawn).max() <= limit
      deviation = limit / np.sqrt(3)
    else:
      # Cut off at two standard deviations, which leaves 0.8796 of one.
      assert 0.038 < np.abs(drawn).max() <= 0.04
      deviation = 0.02 * 0.8796
    assert drawn.std() == pytest.approx(deviation, rel=0.05)
    assert abs(drawn.mean()) < 5 * deviation / np.sqrt(drawn.size)


@pytest.mark.parametrize('layers', [(2, 0), (1,), (0, 2, 2, 1)], ids=str)
def test_chosen_layers_are_those_of_the_file(weights, layers):
  """The oracle is the file, read by its own library."""
  config = _config(weights, **{'model.layers': layers})
  encoder = pretrained.load_encoder(config)
  assert encoder.config.num_layers == len(layers)
  assert encoder.description.endswith(f'layers {", ".join(map(str, layers))}')
  setup = setup_lib.Setup(config, registry.resolve(config), encoder)
  params = setup.initial_params(0)
  kernels = params['encoder']['layers']['output']['kernel']
  stored = safetensors.numpy.load_file(weights / 'model.safetensors')
  for here, there in enumerate(layers):
    name = f'encoder.layer.{there}.output.dense.weight'
    np.testing.assert_array_equal(kernels[here], stored[name].T)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'model.layers': (0, 3)}, 'has no layer 3; give numbers from 0 to 2'),
    ({'model.layers': (-1,)}, 'no layer -1'),
    ({'model.layers': (0,), 'model.num_layers': 1}, 'set only one of the two'),
    ({'model.layers': (0,), 'model.init': ''}, 'config.model.init names none'),
  ],
  ids=['beyond', 'below', 'both', 'random'],
)
def test_layers_that_cannot_be_chosen_are_refused(weights, changes, message):
  with pytest.raises(errors.UserError, match=message):
    pretrained.load_encoder(_config(weights, **changes))


def test_a_vocabulary_beyond_the_embeddings_is_refused(weights):
  size = huggingface.load_config(weights)['vocab_size']
  _write_vocabulary(weights, size + 1)
  with pytest.raises(
    errors.UserError, match=rf'has {size + 1} tokens, but .* for {size};'
  ):
    _ = pretrained.load_encoder(_config(weights)).tokenizer


def test_another_vocabulary_starts_from_the_pieces_of_its_tokens(weights):
  """The oracle is the stored table; `w4w5` is no token there, `w7` is."""
  file = weights / 'other.txt'
  tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'w7', 'w4-w5', '##w6', '!']
  file.write_text('\n'.join(tokens) + '\n')
  config = _config(weights, **{'model.init_vocab': str(file)})
  encoder = pretrained.load_encoder(config)
  assert encoder.config.vocab_size == encoder.tokenizer.vocab_size == 8
  assert encoder.description.endswith('8 other tokens')
  assert encoder.tokenizer.encode(['W7 w4'])[0].tolist() == [4, 1]
  assert (
    encoder.tokenizer.fingerprint
    == pretrained.load_tokenizer(config).fingerprint
  )
  setup = setup_lib.Setup(config, registry.resolve(config), encoder)
  embedding = setup.initial_params(0)['encoder']['embeddings']['word']
  stored = safetensors.numpy.load_file(weights / 'model.safetensors')
  old = stored['embeddings.word_embeddings.weight']
  expected = [
    *old[:4],
    old[4 + 7],
    (old[4 + 4] + old[1] + old[4 + 5]) / 3,  # `-` is none
    old[4 + 6],
    old[1],
  ]
  np.testing.assert_allclose(
    embedding['embedding'], expected, rtol=0, atol=1e-7
  )


def test_the_same_weights_for_other_tokens_are_others(weights):
  """As many tokens: no shape would tell models of one from those of another."""
  digests = {pretrained.load_encoder(_config(weights)).digest}
  for last in ('w7', 'w8'):
    file = weights / f'{last}.txt'
    file.write_text('\n'.join(['[PAD]', '[UNK]', '[CLS]', '[SEP]', last]))
    config = _config(weights, **{'model.init_vocab': str(file)})
    digests.add(pretrained.load_encoder(config).digest)
    # Wherever the file lies.
    moved = file.rename(weights / 'moved.txt')
    config = _config(weights, **{'model.init_vocab': str(moved)})
    digests.add(pretrained.load_encoder(config).digest)
  assert len(digests) == 3


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'model.init_vocab': 'nowhere'}, 'config.model.init_vocab: nowhere cann'),
    (
      {'model.init_vocab': 'other.txt', 'model.init': ''},
      'init_vocab=other.txt: replaces the vocabulary of a pretrained model, a',
    ),
  ],
  ids=['no-file', 'random'],
)
def test_another_vocabulary_that_cannot_be_had_is_refused(
  weights, changes, message
):
  with pytest.raises(errors.UserError, match=message):
    pretrained.load_encoder(_config(weights, **changes))


def test_missing_weights_stop(tmp_path):
  absent = tmp_path / 'absent'
  with pytest.raises(errors.UserError, match='absent'):
    pretrained.load_encoder(_config(absent))


def test_a_vocabulary_of_any_size_is_not_read(tmp_path):
  file = tmp_path / 'vocab.txt'
  with file.open('wb') as stream:
    stream.truncate(1 << 40)  # A hole: it takes no room on the disk.
  config = _config('', **{'model.arch': 'tiny', 'model.vocab': str(file)})
  with pytest.raises(errors.UserError, match=r'vocab.txt cannot be read .*ov'):
    pretrained.load_encoder(config)


@pytest.mark.parametrize('end', ['\n', '\r\n'])
def test_a_vocabulary_file_is_split_at_newlines_alone(tmp_path, end):
  # BERT's multilingual vocabulary holds a U+2028, where `str.splitlines` cuts.
  words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '\u2028', 'last']
  file = tmp_path / 'vocab.txt'
  file.write_bytes((end.join(words) + end).encode())
  config = _config('', **{'model.arch': 'tiny', 'model.vocab': str(file)})
  encoder = pretrained.load_encoder(config)
  assert encoder.config.vocab_size == len(words)
  assert encoder.tokenizer.encode(['last'])[0].tolist() == [5]


@pytest.fixture
def jax_settings():
  """Restores the settings of JAX and Python that a test changes."""
  names = (
    'jax_compilation_cache_dir',
    'jax_persistent_cache_min_compile_time_secs',
  )
  before = {name: getattr(jax.config, name) for name in names}
  interval = sys.getswitchinterval()
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
  sys.setswitchinterval(interval)


def test_a_second_work_directory_keeps_its_own_programs(tmp_path, jax_settings):
  for number, name in enumerate('ab'):
    setup_lib.configure_jax(config_lib.Config(), tmp_path / name)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.jit(lambda x, by=number: jnp.sin(x) + by)(jnp.arange(3.0))
    assert [*(tmp_path / name / 'compiled').glob('jit__lambda*')]


@pytest.mark.parametrize(
  ('told', 'before', 'count'),
  [
    ({}, '', min(os.cpu_count(), 2)),
    ({'JAX_NUM_CPU_DEVICES': '3'}, '', 3),
    ({'XLA_FLAGS': '--xla_force_host_platform_device_count=4'}, '', 4),
    # As in a process that has joined others.
    ({}, 'jax.devices();', 1),
  ],
)
def test_a_cpu_that_predicts_is_two_devices_unless_jax_is_told(
  told, before, count
):
  code = (
    f'import jax; {before} from bam_jax.training import setup;'
    ' setup.start_devices(predicts=True); print(len(jax.devices()))'
  )
  environ = {
    name: value
    for name, value in os.environ.items()
    if name not in ('JAX_NUM_CPU_DEVICES', 'XLA_FLAGS')
  }
  said = subprocess.run(
    [sys.executable, '-c', code],
    env=environ | told,
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  assert said == f'{count}\n'
