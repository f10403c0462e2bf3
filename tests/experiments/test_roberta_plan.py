"""Plans that start from a RoBERTa: trained, killed, resumed, exported.

Oracle of what is exported: transformers' models and tokenizers.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from bam_jax import config as config_lib
from bam_jax.data import features
from bam_jax.experiments import export
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import predict
from bam_jax.experiments import probes
from bam_jax.experiments import train
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import huggingface
from bam_jax.modeling import layers
from bam_jax.tasks import demo
from tests.configs import kinds as kinds_config
from tests.data import roberta_tokenizers
from tests.experiments import commands
from tests.kinds import rows as rows_lib
from tests.modeling import models

_GROUP = 'multi-s0'
_FAMILY = families.FAMILIES['roberta']
_TEXTS = {
  'demo_sentiment': ('the cat was lovely .',),
  'demo_similarity': ('the cat sat .', 'a nasty dog'),
  'moods': ('the soup was horrible',),
  'names': ('the doctor Zoe Smith bought a car',),
  'things': ('who bought it ?', 'the singer bought  a boat .'),
}


def _write_model(path: Path) -> Path:
  """Writes random weights, as transformers names them, and a tokenizer."""
  roberta_tokenizers.make('roberta', path, demo.vocabulary())
  tokenizer = features.Tokenizer.from_dir(path)
  config = family.EncoderConfig(
    vocab_size=tokenizer.vocab_size,
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    intermediate_size=64,
    max_positions=80,
    type_vocab_size=1,
    layer_norm_eps=1e-5,
    family='roberta',
    activation='gelu_new',
  )
  # Larger than initial weights, so that outputs differ between texts.
  params = models.draw_params(heads.MultiTaskModel(config, 1, 2), 0.2)
  params = {name: params[name] for name in ('encoder', 'pooler')}
  tensors = huggingface.save_params(params, _FAMILY)
  safetensors.numpy.save_file(tensors, path / 'model.safetensors')
  values = huggingface.save_config(config, tokenizer.pad_id)
  (path / 'config.json').write_text(json.dumps(values))
  return path


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> Path:
  return _write_model(tmp_path_factory.mktemp('roberta'))


@pytest.fixture(scope='module')
def plan(weights, tmp_path_factory) -> plan_lib.Plan:
  """A finished multi-task run of all kinds."""
  folder = tmp_path_factory.mktemp('plan')
  rows_lib.write(folder)
  config = kinds_config.get_config()
  config.update_from_flattened_dict({
    'data.dir': str(folder),
    'data.max_length': 80,
    'packing.row_length': 80,
    'model.init': str(weights),
    'variants': ('multi',),
    'plan.baselines': False,
    'multi.max_steps': 3,
    'mesh.data': 1,
  })  # fmt: skip
  made = plan_lib.make_plan(
    config_lib.from_config_dict(config), folder / 'work'
  )
  train.run(made)
  return made


@pytest.mark.fault
def test_a_killed_plan_goes_on_and_takes_texts(weights, tmp_path):
  workdir, init = tmp_path / 'work', f'--config.model.init={weights}'
  killed = commands.SIGNAL_AFTER_STEP, commands.TEACHER, '10', 'SIGKILL'
  commands.dies(commands.start(workdir, tmp_path, *killed, flags=[init]))
  assert (workdir / 'runs' / commands.TEACHER / 'checkpoints').is_dir()
  assert not (workdir / 'runs' / commands.TEACHER / 'DONE').exists()
  commands.ends_with(commands.start(workdir, tmp_path, flags=[init]), 0)
  for run in commands.RUNS:
    done = json.loads((workdir / 'runs' / run / 'DONE').read_text())
    assert done['steps'] == 20
  texts = tmp_path / 'texts.jsonl'
  texts.write_text('{"text": "a lovely day"}\n')
  flags = (
    init, '--mode=predict', f'--group={commands.STUDENT}', f'--input={texts}',
    '--task=demo_sentiment', f'--output={tmp_path / "found.jsonl"}',
  )  # fmt: skip
  commands.ends_with(commands.start(workdir, tmp_path, flags=flags), 0)
  (line,) = (tmp_path / 'found.jsonl').read_text().splitlines()
  assert json.loads(line)['label'] in ('negative', 'positive')


def test_exports_compute_the_plans_logits(plan):
  """By torch and AutoTokenizer, by the program, and by `predict`."""
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  export.export(plan, _GROUP)
  export.export(plan, _GROUP, 'stablehlo')
  exports = plan.workspace.root / 'exports'
  program = exports / f'{_GROUP}-stablehlo' / 'all'
  compiled = jax.export.deserialize(
    (program / 'program.jax_export').read_bytes()
  )
  with np.load(program / 'weights.npz') as stored:
    parameters = dict(stored)
  model = predict.load_model(plan, _GROUP)
  for name, texts in _TEXTS.items():
    task, path = plan.tasks[name], exports / _GROUP / name
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    auto_class = getattr(transformers, f'AutoModel{task.kind.architecture}')
    loaded, told = auto_class.from_pretrained(path, output_loading_info=True)
    assert not any(told[key] for key in ('missing_keys', 'unexpected_keys'))
    assert type(loaded).__name__ == 'Roberta' + task.kind.architecture
    of_words = task.kind.of_words
    inputs = tokenizer(
      *([texts[0].split(' ')] if of_words else texts),
      is_split_into_words=of_words,
      return_tensors='pt',
    )
    assert sorted(inputs) == ['attention_mask', 'input_ids']
    (encoded,) = model.encode(name, [texts])
    ids = inputs['input_ids'].numpy()
    np.testing.assert_array_equal(encoded.rows[0].input_ids, ids[0])
    with torch.no_grad():
      found = loaded.eval()(**inputs)
    if name == 'things':
      logits = torch.stack([found.start_logits[0], found.end_logits[0]], -1)
    else:
      logits = found.logits[0]
    types = np.arange(ids.shape[1])[None] >= encoded.rows[0].length_a
    ours = compiled.call(
      parameters,
      ids.astype(np.int32),
      types.astype(np.int32),
      np.ones(ids.shape, np.int32),
    )[name][0]
    np.testing.assert_allclose(logits, ours, rtol=0, atol=1e-5)
    (result,) = model.predict([encoded])
    if task.kind.has_probabilities and task.kind.one_class:
      np.testing.assert_allclose(
        result.prediction.probabilities,
        torch.softmax(logits, -1),
        rtol=0,
        atol=1e-5,
      )


def test_texts_of_pairs_are_encoded_apart_as_alone(plan):
  name = 'demo_similarity'
  rows = plan.features[name]['dev']
  whole = np.flatnonzero(np.diff(rows.ragged('input_ids')[1]) < 80)[:3]
  assert len(whole) == 3
  held = probes._texts(plan.tasks[name], rows, whole, 2)
  examples = list(demo.generate(name, 'dev'))
  examples = [examples[i] for i in whole]
  tokenizer, alone = plan.encoder.tokenizer, []
  for texts in ([e.text_a for e in examples], [e.text_b for e in examples]):
    for ids in tokenizer.encode(texts):
      alone.append([tokenizer.cls_id, *ids.tolist(), tokenizer.sep_id])
  values, offsets = held.ragged('input_ids')
  found = [part.tolist() for part in np.split(values, offsets[1:-1])]
  assert found == alone


@pytest.mark.parametrize('name', ['demo_sentiment', 'all'])
def test_encoder_and_pooler_come_back_bit_equal(plan, name):
  export.export(plan, _GROUP)
  path = plan.workspace.root / 'exports' / _GROUP / name
  sizes = huggingface.load_config(path)
  config = plan.encoder.config
  assert family.EncoderConfig(**sizes) == config
  params = layers.unstack(plan.restore_params(_GROUP))
  jax.tree.map(
    np.testing.assert_array_equal,
    huggingface.load_params(path, config),
    {key: params[key] for key in ('encoder', 'pooler')},
  )
