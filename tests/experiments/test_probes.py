"""Runs whose heads start as linear probes, and pairs read by a bi-encoder.

Oracle: the frozen encoder of the baselines, which encodes every text alone and
applies its linear model in NumPy.
"""

import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.experiments import export
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import predict
from bam_jax.experiments import probes
from bam_jax.experiments import train
from bam_jax.tasks import demo
from bam_jax.training import linear
from tests.configs import tiny

_CLASSES, _PAIRS = 'demo_sentiment', 'demo_similarity'
_CHANGES = {
  'model.pooling': 'mean',
  'model.head_init': 'linear_probe',
  'data.bi_encoder': (_PAIRS,),
  'variants': ('single', 'multi'),
  'single.max_steps': 4,
  'multi.max_steps': 4,
  'mesh.data': 1,
}


def _plan(workdir, setup=None, **changes):
  config = tiny.get_config()
  config.update_from_flattened_dict(_CHANGES | changes)
  config = config_lib.from_config_dict(config)
  return plan_lib.make_plan(config, workdir, setup=setup)


@pytest.fixture(autouse=True, scope='module')
def weak_penalty():
  """With the chosen one, all logits of this small encoder are close to 0."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(linear, '_STRENGTHS', (0.1,))
    yield


@pytest.fixture(scope='module')
def plan(tmp_path_factory):
  """Runs of single tasks and of both that end where they started."""
  made = _plan(
    tmp_path_factory.mktemp('probes'),
    **{
      'plan.baselines': True,
      'single.learning_rate': 0.0,
      'multi.learning_rate': 0.0,
    },
  )
  train.run(made)
  return made


def _logits(path, task):
  with np.load(path) as stored:
    return stored[f'{task}/dev/logits']


@pytest.mark.parametrize('task', [_CLASSES, _PAIRS])
def test_a_model_that_learnt_nothing_is_the_frozen_encoder(plan, task):
  workspace = plan.workspace
  expected = _logits(workspace.baselines(task) / 'frozen_encoder.npz', task)
  assert expected.std(axis=0).max() > 0.05
  for run in (f'single-s0-{task}', 'multi-s0'):
    found = _logits(workspace.outputs(run), task)
    # Standardised vectors there, and the same product without it here.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_texts_of_the_user_are_predicted_as_evaluated(plan):
  model = predict.load_model(plan, 'multi-s0')
  pairs = [(e.text_a, e.text_b) for e in demo.generate(_PAIRS, 'dev')][:8]
  results = model.predict(model.encode(_PAIRS, pairs))
  found = [result.prediction.said['score'] for result in results]
  logits = _logits(plan.workspace.outputs('multi-s0'), _PAIRS)[:8, 0]
  low, high = plan.tasks[_PAIRS].scale
  expected = low + (high - low) / (1 + np.exp(-logits.astype(np.float64)))
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
  # [CLS] a [SEP] [CLS] b [SEP]
  (row,) = model.encode(_PAIRS, [('a b', 'c')])[0].rows
  tokenizer = plan.encoder.tokenizer
  cls, sep = tokenizer.cls_id, tokenizer.sep_id
  a, b = tokenizer.encode(['a b', 'c'])
  assert row.input_ids.tolist() == [cls, *a, sep, cls, *b, sep]
  assert row.length_a == len(a) + 2


def test_a_run_learns_from_there(plan, tmp_path):
  plan = _plan(tmp_path, plan.setup, variants=('multi',))
  before = plan.setup.initial_params(0)['heads']
  probed = probes.ProbedHeads(plan).initial_params(plan.runs[0])['heads']
  train.run(plan)
  after = plan.restore_params('multi-s0')['heads']
  for name in ('kernel', 'bias', 'pair_kernel'):
    moved = np.abs(np.asarray(after[name]) - probed[name]).max()
    assert 0 < moved < np.abs(probed[name] - before[name]).max()


def test_a_teacher_of_a_fold_has_a_probe_of_its_own_rows(tmp_path, monkeypatch):
  fitted = []
  fit = linear.fit

  def recorded(task, vectors, rows, chosen):
    fitted.append({rows.uids[row] for row in chosen})
    return fit(task, vectors, rows, chosen)

  monkeypatch.setattr(linear, 'fit', recorded)
  plan = _plan(
    tmp_path,
    **{
      'variants': ('single_to_multi',),
      'distill.folds': 2,
      'tasks': (_CLASSES,),
      'data.bi_encoder': (),
      'seeds': (0, 1),
    },
  )
  heads = probes.ProbedHeads(plan)
  for run in plan.runs:
    heads.initial_params(run)
  uids = set(plan.features[_CLASSES]['train'].uids)
  # Two teachers of folds and a student for each seed, whose weights are random.
  whole = [own for own in fitted if own == uids]
  first, second, third, _ = [own for own in fitted if own != uids]
  assert len(whole) == 2
  assert first | second == uids
  assert not first & second
  assert third not in (first, second)


def test_programs_of_a_bi_encoder_are_refused(plan):
  with pytest.raises(errors.UserError, match='reads the pairs of demo_sim'):
    export.export(plan, 'multi-s0', 'stablehlo')


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'model.pooling': 'cls'}, "bi_encoder=('demo_similarity',): needs mean"),
    (
      {'model.pooling': 'cls', 'data.bi_encoder': ()},
      'config.model.head_init=linear_probe: needs mean pooling',
    ),
    ({'data.bi_encoder': (_CLASSES,)}, 'has one text a row; leave it out'),
    ({'data.bi_encoder': ('rte',)}, "config.data.bi_encoder: 'rte' is none of"),
  ],
  ids=str,
)
def test_what_cannot_be_computed_is_refused(tmp_path, changes, message):
  with pytest.raises(errors.UserError) as e:
    _plan(tmp_path, **changes)
  assert message in str(e.value)
