"""Plans that start from encoders of several families, and their commands."""

import json
from pathlib import Path
import re
import signal
import urllib.request

import jax
import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from bam_jax import config as config_lib
from bam_jax.experiments import identity
from bam_jax.experiments import plan as plan_lib
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import huggingface
from bam_jax.tasks import demo
from tests.configs import tiny
from tests.data import modernbert_tokenizer
from tests.experiments import commands

_GOLDEN = Path(__file__).parents[1] / 'modeling' / 'golden'


def _write_model(path: Path, name: str, **changes: object) -> Path:
  """Writes random weights of a golden model's sizes, and a vocabulary."""
  if name == 'modernbert':
    modernbert_tokenizer.make(path)
    tokenizer = tokenizers.Tokenizer.from_file(str(path / 'tokenizer.json'))
    size, pad = tokenizer.get_vocab_size(), tokenizer.token_to_id('[PAD]')
  else:
    words = demo.vocabulary()
    size, pad = len(words), words.index('[PAD]')
    path.mkdir(exist_ok=True)
    (path / 'vocab.txt').write_text('\n'.join(words) + '\n')
    # transformers has no WordPiece tokenizer for some model types.
    settings = '{"tokenizer_class": "BertTokenizer"}'
    (path / 'tokenizer_config.json').write_text(settings)
  config = family.EncoderConfig(
    **huggingface.load_config(_GOLDEN / name)
    | {'vocab_size': size, 'max_positions': 128}
  )
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32),
    heads.abstract_params(heads.MultiTaskModel(config, 1, 2)),
  )
  tensors = huggingface.save_params(
    {'encoder': params['encoder']}, families.FAMILIES[config.family]
  )
  safetensors.numpy.save_file(tensors, path / 'model.safetensors')
  values = huggingface.save_config(config, pad)
  (path / 'config.json').write_text(json.dumps(values | changes))
  return path


def _plan(weights: Path, workdir: Path) -> plan_lib.Plan:
  config = tiny.get_config()
  config.model.init = str(weights)
  return plan_lib.make_plan(config_lib.from_config_dict(config), workdir)


def test_the_activation_is_part_of_a_runs_identity(tmp_path):
  """The weights' digest stays, since it is of the weights."""
  found = []
  for activation in ('gelu', 'gelu_new'):
    weights = _write_model(
      tmp_path / 'model', 'distilbert', activation=activation
    )
    plan = _plan(weights, tmp_path / 'work')
    found.append(identity.settings(plan, plan.runs[0]))
  one, two = found
  assert one.keys() == two.keys()
  assert {key for key in one if one[key] != two[key]} == {'encoder.activation'}
  assert two['encoder.activation'] == 'gelu_new'


def _ask_server(workdir: Path, cwd: Path, *flags: str) -> str:
  """Returns the label of one text that a server gives."""
  server = commands.start(
    workdir, cwd, flags=['--mode=serve', '--port=0', *flags]
  )
  try:
    told = ''
    while not (found := re.search(r'is served at (http://\S+)', told)):
      told += server.stderr.readline() or pytest.fail(told)
    body = json.dumps({'inputs': ['a lovely day'], 'task': 'demo_sentiment'})
    with urllib.request.urlopen(
      f'{found[1]}/v1/predict', body.encode()
    ) as response:
      (predictions,) = json.load(response)['predictions']
    server.send_signal(signal.SIGTERM)
    commands.ends_with(server, 0)
  finally:
    server.kill()
  return predictions['demo_sentiment']['label']


@pytest.mark.fault
@pytest.mark.parametrize(
  'name', ['electra-narrow', 'distilbert', 'deberta-v3', 'ernie', 'modernbert']
)
def test_a_killed_plan_goes_on_and_every_command_takes_it(name, tmp_path):
  weights = _write_model(tmp_path / 'model', name)
  workdir, init = tmp_path / 'work', f'--config.model.init={weights}'

  def command(*flags: str) -> str:
    return commands.ends_with(
      commands.start(workdir, tmp_path, flags=[init, *flags]), 0
    )

  command('--mode=estimate')
  killed = commands.SIGNAL_AFTER_STEP, commands.TEACHER, '10', 'SIGKILL'
  commands.dies(commands.start(workdir, tmp_path, *killed, flags=[init]))
  assert (workdir / 'runs' / commands.TEACHER / 'checkpoints').is_dir()
  assert not (workdir / 'runs' / commands.TEACHER / 'DONE').exists()
  command()
  for run in commands.RUNS:
    done = json.loads((workdir / 'runs' / run / 'DONE').read_text())
    assert done['steps'] == 20
  texts = tmp_path / 'texts.jsonl'
  texts.write_text('{"text": "a lovely day"}\n')
  group = f'--group={commands.STUDENT}'
  command(
    '--mode=predict', group, f'--input={texts}', '--task=demo_sentiment',
    f'--output={tmp_path / "found.jsonl"}',
  )  # fmt: skip
  (line,) = (tmp_path / 'found.jsonl').read_text().splitlines()
  label = json.loads(line)['label']
  assert label in ('negative', 'positive')
  assert _ask_server(workdir, tmp_path, init, group) == label
  command('--mode=export', group)
  command('--mode=export', group, '--format=stablehlo')
  exports = workdir / 'exports'
  assert (
    exports / f'{commands.STUDENT}-stablehlo' / 'all' / 'program.jax_export'
  ).is_file()
  exported = exports / commands.STUDENT / 'demo_sentiment'
  config = family.EncoderConfig(**huggingface.load_config(exported))
  params = huggingface.load_params(exported, config)
  assert sorted(params) == ['encoder', 'pooler']
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
  # Another activation is another function of the same weights.
  keys = 'activation', 'hidden_act', 'hidden_activation'
  _write_model(tmp_path / 'model', name, **dict.fromkeys(keys, 'relu'))
  process = commands.start(workdir, tmp_path, flags=[init])
  assert 'encoder.activation was ' in commands.ends_with(process, 2)
