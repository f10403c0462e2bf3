"""A plan whose students learn of rows without labels too.

Oracles: the tokens of the batches that were trained on; NumPy over the written
logits.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from bam_jax import errors
from bam_jax.data import shards
from bam_jax.experiments import label
from bam_jax.experiments import train
from bam_jax.tasks import demo
from bam_jax.training import loop

_TASKS = ('demo_sentiment', 'demo_similarity')
_FOLDS, _ROWS, _STEPS = 2, 40, 4
_OWN = {
  'without': {
    'like': 'single_to_multi',
    'changes': {'distill': {'unlabelled': False}},
  }
}


def _changes(data: Path, **changes) -> dict[str, object]:
  return {
    'variants': ('multi', 'single_to_multi', 'without'),
    'data.dir': str(data),
    'data.unlabelled': (
      'demo_sentiment=more.jsonl',
      'demo_similarity=more.tsv',
    ),
    'data.swap': ('demo_similarity',),
    'distill.folds': _FOLDS,
    'single.max_steps': _STEPS,
    'multi.max_steps': _STEPS,
    **changes,
  }


class _Plan:
  """A finished plan, and the slots of the batches that its runs saw."""

  def __init__(self, make, data: Path, workdir: Path):
    self.make, self.data, self.workdir = make, data, workdir
    texts = demo.generate('demo_sentiment', 'test')[:_ROWS]
    rows = [json.dumps({'text': row.text_a, 'label': '?'}) for row in texts]
    (data / 'more.jsonl').write_text('\n'.join(rows))
    pairs = demo.generate('demo_similarity', 'test')[:_ROWS]
    rows = [f'{row.text_a}\t{row.text_b}' for row in pairs]
    (data / 'more.tsv').write_text('\n'.join(['text\ttext_pair', *rows]))
    self.plan = make(workdir, _OWN, **_changes(data))
    # run -> (task, uid) -> target and teacher
    self.seen: dict[str, dict[tuple[str, str], np.ndarray]] = {}
    train_specs = loop.train

    def watched(group, *arguments):
      for spec in group:
        found = self.seen.setdefault(spec.name, {})
        for step in range(spec.num_steps):
          found |= self._slots(spec.batches(step))
      return train_specs(group, *arguments)

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(loop, 'train', watched)
      train.run(self.plan)

  def _slots(self, batch) -> dict[tuple[str, str], np.ndarray]:
    known = {}
    for task in _TASKS:
      for split in ('train', 'unlabelled'):
        columns = self.plan.features[task][split]
        values, offsets = columns.ragged('input_ids')
        for row, uid in enumerate(columns.uids):
          tokens = tuple(values[offsets[row] : offsets[row + 1]].tolist())
          known[task, tokens] = uid
    found = {}
    for row, slot in zip(*np.nonzero(batch['weight'])):
      mine = batch['segment_ids'][row] == slot + 1
      task = _TASKS[batch['task_id'][row, slot]]
      tokens = tuple(batch['input_ids'][row][mine].tolist())
      found[task, known[task, tokens]] = np.stack(
        [batch['gold'][row, slot], batch['teacher'][row, slot]]
      )
    return found

  def unlabelled(self, run: str) -> dict[tuple[str, str], np.ndarray]:
    return {
      key: value
      for key, value in self.seen[run].items()
      if '/unlabelled/' in key[1]
    }

  def logits(self, run: str, task: str) -> dict[str, np.ndarray]:
    """uid -> what a run said of rows without labels."""
    width = self.plan.tasks[task].num_outputs
    directory = self.workdir / 'teachers' / run / f'{task}.unlabelled'
    columns = shards.open(directory, shards.logits_fields(width), None)
    values = np.array(columns.fixed('logits'), np.float64)
    return dict(zip(columns.uids, values.reshape(-1, width), strict=True))


@pytest.fixture(scope='module')
def finished(tiny_plan, tmp_path_factory) -> _Plan:
  data, workdir = (tmp_path_factory.mktemp(name) for name in ('data', 'plan'))
  return _Plan(tiny_plan, data, workdir)


def test_students_alone_see_them(finished):
  assert len(finished.unlabelled('single_to_multi-s0')) >= 5
  others = set(finished.seen) - {'single_to_multi-s0'}
  assert len(others) == 2 * _FOLDS + 2
  for run in others:
    assert not finished.unlabelled(run)


def test_their_target_is_the_mean_over_the_folds(finished):
  tasks = set()
  for (task, uid), slot in finished.unlabelled('single_to_multi-s0').items():
    said = []
    for number in range(1, _FOLDS + 1):
      logits = finished.logits(f'single-s0-{task}-fold{number}of{_FOLDS}', task)
      assert len(logits) == _ROWS * (2 if task == 'demo_similarity' else 1)
      x = logits[uid]
      is_score = task == 'demo_similarity'
      said.append(1 / (1 + np.exp(-x)) if is_score else np.exp(x))
      if not is_score:
        said[-1] /= said[-1].sum()
    mean = np.zeros(2)
    mean[: len(said[0])] = np.mean(said, axis=0)
    # Both the gold target and the teacher's: λ does not matter.
    np.testing.assert_allclose(slot, [mean, mean], rtol=0, atol=1e-6)
    tasks.add(task)
  assert tasks == {*_TASKS}


def test_what_does_not_see_them_is_as_if_there_were_none(
  finished, tiny_plan, tmp_path
):
  changes = {'data.unlabelled': (), 'variants': ('multi', 'single_to_multi')}
  plan = tiny_plan(tmp_path, **_changes(finished.data, **changes))
  train.run(plan)
  for run, other in (
    ('multi-s0', 'multi-s0'),
    ('single-s0-demo_sentiment-fold1of2',) * 2,
    ('without-s0', 'single_to_multi-s0'),
  ):
    ours, theirs = (
      json.loads((workdir / 'runs' / name / 'DONE').read_text())
      for workdir, name in ((finished.workdir, run), (tmp_path, other))
    )
    assert ours['parameters'] == theirs['parameters']
    assert ours['scores'] == theirs['scores']


def test_a_work_directory_goes_on(finished, tiny_plan, trained):
  plan = tiny_plan(finished.workdir, _OWN, **_changes(finished.data))
  train.run(plan)
  assert not trained


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'data.unlabelled': ()}, r'single_to_multi-s0: .*sentiment\.unlabelled'),
    ({'distill.unlabelled': False}, r'distill\.unlabelled was True, is False'),
  ],
  ids=['no-file', 'off'],
)
def test_a_student_of_other_rows_is_refused(
  finished, tiny_plan, changes, message
):
  if 'distill.unlabelled' in changes:
    changes['data.unlabelled'] = ()
  plan = tiny_plan(finished.workdir, _OWN, **_changes(finished.data, **changes))
  with pytest.raises(errors.UserError, match=message):
    train.run(plan)


def test_the_report_tells_of_them(finished):
  notes = json.loads((finished.workdir / 'report.json').read_text())['notes']
  assert notes['rows without labels'] == (
    'demo_sentiment=more.jsonl, demo_similarity=more.tsv; only taught variants'
  )


def test_a_plan_labels_them_for_others(finished, tiny_plan, tmp_path):
  """Oracle: the targets of the student that its own teachers taught."""
  own = {'distill.folds': 1, 'variants': ('single', 'single_to_multi')}
  plan = tiny_plan(tmp_path / 'own', **_changes(finished.data, **own))
  train.run(plan)
  # A plan of teachers alone has nobody to train on them, but labels them.
  alone = _changes(finished.data, **{**own, 'variants': ('single',)})
  plan = tiny_plan(tmp_path / 'own', **alone)
  with pytest.raises(errors.UserError, match='unlabelled: none of the'):
    train.run(plan)
  label.label(plan, 'single-s0', tmp_path / 'sets', None)
  other = {**own, 'distill.logits': str(tmp_path / 'sets')}
  other['variants'] = ('single_to_multi',)
  changes = _changes(finished.data, **other)
  train.run(tiny_plan(tmp_path / 'other', **changes))
  logs = [
    (tmp_path / name / 'runs/single_to_multi-s0/metrics.jsonl').read_text()
    for name in ('own', 'other')
  ]
  losses = [json.loads(log.splitlines()[0])['loss'] for log in logs]
  assert losses[0] == pytest.approx(losses[1], rel=1e-6)
  (tmp_path / 'sets' / 'demo_sentiment.unlabelled').rename(tmp_path / 'gone')
  with pytest.raises(
    errors.UserError,
    match=r'no logits for demo_sentiment\.unlabelled, .*from config\.data\.unl',
  ):
    train.run(tiny_plan(tmp_path / 'third', **changes))
