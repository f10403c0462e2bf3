"""A plan with mean pooling: what it saves, starts from, predicts and exports.

Oracle: the exported encoder on one example a row; NumPy's mean and head.
"""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy
import scipy.special

from bam_jax import config as config_lib
from bam_jax.experiments import export
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import predict
from bam_jax.experiments import train
from bam_jax.modeling import bert
from bam_jax.modeling import huggingface
from bam_jax.tasks import demo
from tests.configs import tiny

_TASK = 'demo_sentiment'
_GROUP = 'multi-s0'


@pytest.fixture(scope='module')
def plan(tmp_path_factory):
  """A multi-task run, and runs that start from it."""
  config = tiny.get_config()
  config.custom_variants.tuned = config_lib.custom_variant(
    'single',
    start='multi',
    changes={'single': {'learning_rate': 0.0}},
  )
  config.update_from_flattened_dict({
    'model.pooling': 'mean',
    'variants': ('multi', 'tuned'),
    'single.max_steps': 3,
    'multi.max_steps': 3,
    'mesh.data': 1,
  })  # fmt: skip
  made = plan_lib.make_plan(
    config_lib.from_config_dict(config), tmp_path_factory.mktemp('mean')
  )
  train.run(made)
  return made


@pytest.fixture(scope='module')
def expected(plan):
  """Logits of the first dev examples, by what `export` wrote, [8, 2]."""
  export.export(plan, _GROUP)
  path = plan.workspace.root / 'exports' / _GROUP / _TASK
  encoder = huggingface.load_params(path, plan.encoder.config)['encoder']
  head = safetensors.numpy.load_file(path / '2_Dense' / 'model.safetensors')
  ids, mask = _rows(plan)
  hidden = jax.jit(
    bert.BertEncoder(plan.encoder.config).apply, static_argnums=5
  )(
    {'params': encoder},
    ids,
    np.zeros_like(ids),
    np.arange(ids.size, dtype=np.int32).reshape(ids.shape) % ids.shape[1],
    mask,
    True,
  )
  pooled = [
    np.asarray(row, np.float64)[own > 0].mean(axis=0)
    for row, own in zip(hidden, mask)
  ]
  return np.array(pooled) @ head['linear.weight'].T + head['linear.bias']


def _rows(plan) -> tuple[np.ndarray, np.ndarray]:
  """Token ids of the first dev examples, one a row, and 1 for real tokens."""
  tokenizer = plan.encoder.tokenizer
  rows = [
    [tokenizer.cls_id, *ids, tokenizer.sep_id]
    for ids in tokenizer.encode(_texts())
  ]
  length = max(map(len, rows)) + 3
  return tuple(
    np.array([row + [0] * (length - len(row)) for row in values], np.int32)
    for values in (rows, [[1] * len(row) for row in rows])
  )


def _texts() -> list[str]:
  return [example.text_a for example in demo.generate(_TASK, 'dev')][:8]


def test_saved_logits_are_those_of_the_exported_files(plan, expected):
  with np.load(plan.workspace.run(_GROUP) / 'outputs.npz') as outputs:
    logits = outputs[f'{_TASK}/dev/logits'][:8]
  np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_texts_are_predicted_as_evaluated(plan, expected):
  model = predict.load_model(plan, _GROUP)
  results = model.predict(model.encode(_TASK, [(text,) for text in _texts()]))
  found = [result.prediction.probabilities for result in results]
  probs = scipy.special.softmax(expected, axis=-1)
  np.testing.assert_allclose(found, probs, rtol=0, atol=1e-5)


def test_an_exported_program_computes_the_same(plan, expected):
  export.export(plan, _GROUP, 'stablehlo')
  path = plan.workspace.root / 'exports' / f'{_GROUP}-stablehlo' / 'all'
  program = jax.export.deserialize((path / 'program.jax_export').read_bytes())
  with np.load(path / 'weights.npz') as stored:
    weights = dict(stored)
  ids, mask = _rows(plan)
  found = program.call(weights, ids, np.zeros_like(ids), mask)[_TASK]
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_run_starts_from_parameters_without_a_pooler(plan):
  params = plan.restore_params(_GROUP)
  assert params.keys() == {'encoder', 'heads'}
  digests = {
    json.loads((plan.workspace.run(name) / 'DONE').read_text())['parameters']
    for name in (_GROUP, f'tuned-s0-{_TASK}', 'tuned-s0-demo_similarity')
  }
  assert len(digests) == 1
