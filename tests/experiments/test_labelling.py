"""A whole plan whose teachers label what they did not see.

Oracles: the tokens of the batches that were trained on; NumPy and scikit-learn
over the written logits.
"""

import json
from pathlib import Path
import shutil

import numpy as np
import pytest
from sklearn import metrics as sk_metrics

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import shards
from bam_jax.distillation import logit_sets
from bam_jax.experiments import labelling
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import report as report_lib
from bam_jax.experiments import train
from bam_jax.tasks import demo
from bam_jax.training import loop

_ROWS = {'train': 17, 'dev': 8}
_FOLDS = 3
_SEEDS = (0, 1)
_LABELS = ('down', 'up')
_SWAP = '~swap'


def _write_tables(directory: Path) -> None:
  """`mood`, of two classes, and pairs with a score of 0-5, as TSV files."""
  for name, source in (
    ('mood', 'demo_sentiment'),
    ('closeness', 'demo_similarity'),
  ):
    for split, rows in _ROWS.items():
      lines = ['a\tb\tlabel']
      for example in demo.generate(source, split)[:rows]:
        label = _LABELS[example.label] if name == 'mood' else example.label
        lines.append(f'{example.text_a}\t{example.text_b or "-"}\t{label}')
      path = directory / f'{name}-{split}.tsv'
      path.write_text('\n'.join(lines) + '\n')


def _config(data: Path, **changes) -> config_lib.Config:
  config = config_lib.default_config()
  files = {
    name: {split: f'{name}-{split}.tsv' for split in _ROWS}
    for name in ('mood', 'closeness')
  }
  config.custom_tasks.mood = config_lib.custom_task(
    labels=_LABELS, text=('a',), **files['mood']
  )
  config.custom_tasks.closeness = config_lib.custom_task(
    kind='regression', scale=(0.0, 5.0), text=('a', 'b'), **files['closeness']
  )
  config.update_from_flattened_dict({
    'tasks': ('mood', 'closeness'),
    'variants': ('multi_to_multi', 'single_to_multi'),
    'seeds': _SEEDS,
    'distill.folds': _FOLDS,
    'distill.teachers': 2,
    'data.dir': str(data),
    'mesh.data': 2,
    'data.max_length': 32,
    'data.swap': ('closeness',),
    'model.arch': 'tiny',
    'packing.row_length': 32,
    'packing.slots': 4,
    'packing.row_buckets': (8,),
    'packing.eval_rows': 8,
    'single.max_steps': 4,
    'single.batch_size': 8,
    'multi.max_steps': 8,
    'multi.batch_size': 8,
    'train.log_every': 4,
    'train.tensorboard': False,
    **changes,
  })  # fmt: skip
  return config_lib.from_config_dict(config)


class _Plan:
  """A finished plan, what its runs saw and what its students learnt from."""

  def __init__(self, data: Path, workdir: Path):
    self.data, self.workdir = data, workdir
    # run -> uids of all rows in its batches
    self.seen: dict[str, set[str]] = {}
    self.targets: list[tuple[str, np.ndarray]] = []
    _write_tables(data)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(
        logit_sets, 'read_probs', self._recorded(logit_sets.read_probs)
      )
      patch.setattr(loop, 'train', self._watched(loop.train))
      self.plan = plan_lib.make_plan(_config(data), workdir)
      train.run(self.plan)

  def _recorded(self, targets):
    def recorded(sets, features, task, *arguments):
      result = targets(sets, features, task, *arguments)
      self.targets.append((task.name, result))
      return result

    return recorded

  def _watched(self, train):
    def watched(group, *arguments):
      for spec in group:
        self.seen[spec.name] = set().union(
          *(self._uids(spec.batches(step)) for step in range(spec.num_steps))
        )
      return train(group, *arguments)

    return watched

  def _uids(self, batch) -> set[str]:
    """The rows of a batch, told by their tokens and their task."""
    known = {}
    for task, splits in self.plan.features.items():
      columns = splits['train']
      values, offsets = columns.ragged('input_ids')
      for row, uid in enumerate(columns.uids):
        tokens = tuple(values[offsets[row] : offsets[row + 1]].tolist())
        # No two rows are alike.
        assert (task, tokens) not in known
        known[task, tokens] = uid
    found = set()
    for row, slot in zip(*np.nonzero(batch['weight'])):
      mine = batch['segment_ids'][row] == slot + 1
      task = self.plan.tasks.names[batch['task_id'][row, slot]]
      tokens = tuple(batch['input_ids'][row][mine].tolist())
      found.add(known[task, tokens])
    return found

  def features(self, task: str) -> shards.Columns:
    return self.plan.features[task]['train']

  def logits(
    self, run: str, task: str, workdir: Path | None = None
  ) -> dict[str, np.ndarray]:
    """uid -> logits, of what a run has labelled."""
    width = self.plan.tasks[task].num_outputs
    directory = (workdir or self.workdir) / 'teachers' / run / task
    columns = shards.open(directory, shards.logits_fields(width), None)
    values = np.array(columns.fixed('logits'), np.float64)
    return dict(zip(columns.uids, values.reshape(-1, width), strict=True))

  def record(self, run: str) -> dict:
    return json.loads((self.workdir / 'runs' / run / 'DONE').read_text())


@pytest.fixture(scope='module')
def finished(tmp_path_factory) -> _Plan:
  return _Plan(tmp_path_factory.mktemp('data'), tmp_path_factory.mktemp('plan'))


def _teacher_name(kind: str, seed: int, task: str, number: int) -> str:
  part = f'-{task}' if kind == 'single' else ''
  return f'{kind}-s{seed}{part}-fold{number}of{_FOLDS}'


def _predictions(task: str, logits: np.ndarray) -> np.ndarray:
  if task == 'mood':
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize('task', ['mood', 'closeness'])
@pytest.mark.parametrize('seed', _SEEDS)
@pytest.mark.parametrize('kind', ['single', 'multi'])
def test_no_teacher_labels_a_row_that_it_was_trained_on(
  finished, kind, seed, task
):
  everything = list(finished.features(task).uids)
  assert len(everything) == _ROWS['train'] * (2 if task == 'closeness' else 1)
  labelled = []
  for number in range(1, _FOLDS + 1):
    name = _teacher_name(kind, seed, task, number)
    mine = set(finished.logits(name, task))
    seen = {u for u in finished.seen[name] if u.startswith(f'{task}/')}
    assert not {uid.removesuffix(_SWAP) for uid in seen} & {
      uid.removesuffix(_SWAP) for uid in mine
    }
    # Nothing else is kept from it: a run takes more than two passes.
    assert kind == 'multi' or seen == set(everything) - mine
    labelled += mine
  assert sorted(labelled) == sorted(everything)


def test_students_learn_of_each_row_from_those_that_did_not_see_it(finished):
  """The mean over seeds, of whichever fold has the row."""
  expected = [
    (task, kind)
    for _ in _SEEDS
    for kind in ('multi', 'single')
    for task in ('mood', 'closeness')
  ]
  for (task, kind), (name, targets) in zip(
    expected, finished.targets, strict=True
  ):
    assert task == name
    for uid, target in zip(finished.features(task).uids, targets, strict=True):
      taught_by = []
      for seed in _SEEDS:
        for number in range(1, _FOLDS + 1):
          run = _teacher_name(kind, seed, task, number)
          if uid not in finished.seen[run]:
            taught_by += [
              logits
              for labelled, logits in finished.logits(run, task).items()
              if labelled == uid
            ]
      assert len(taught_by) == len(_SEEDS)
      mean = np.mean([_predictions(task, x) for x in taught_by], axis=0)
      np.testing.assert_allclose(target, mean, rtol=0, atol=1e-6)


def test_the_manifest_tells_what_was_left_out(finished):
  for seed in _SEEDS:
    for number in range(1, _FOLDS + 1):
      run = f'multi-s{seed}-fold{number}of{_FOLDS}'
      path = finished.workdir / 'teachers' / run / 'mood' / 'manifest.json'
      fingerprint = json.loads(path.read_text())['fingerprint']
      assert fingerprint['left_out'] == {
        'number': number,
        'of': _FOLDS,
        'seed': seed,
      }


def test_quality_is_of_the_rows_left_out(finished):
  gold = dict(
    zip(
      finished.features('mood').uids,
      np.array(finished.features('mood').fixed('label'), int),
    )
  )
  for number in range(1, _FOLDS + 1):
    run = _teacher_name('single', 0, 'mood', number)
    logits = finished.logits(run, 'mood')
    expected = sk_metrics.log_loss(
      [gold[uid] for uid in logits],
      _predictions('mood', np.array(list(logits.values()))),
      labels=[0, 1],
    )
    found = finished.record(run)['quality']['mood']['train']
    assert found['log_loss'] == pytest.approx(expected, rel=1e-6)


def test_the_report_is_of_the_students(finished):
  report = json.loads((finished.workdir / 'report.json').read_text())
  assert list(report['variants']) == ['multi_to_multi', 'single_to_multi']


def test_single_is_reported_from_whole_runs_alone(finished, tmp_path):
  workdir = Path(shutil.copytree(finished.workdir, tmp_path / 'work'))
  config = _config(finished.data, variants=('single', 'single_to_multi'))
  plan = plan_lib.make_plan(config, workdir, setup=finished.plan.setup)
  report_lib.report(plan)
  report = json.loads((workdir / 'report.json').read_text())
  assert report['variants']['single']['seeds'] == 0
  assert report['variants']['single_to_multi']['seeds'] == len(_SEEDS)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'distill.folds': 2}, r'_to_multi-s0: .*teacher\.multi-s0-fold1of2 was'),
    ({'distill.folds': 1}, r'_to_multi-s0: .*teacher\.multi-s0 was None'),
    (
      {'distill.folds': 18},
      r'folds=18: the task of .* has only 17 training rows',
    ),
  ],
  ids=['other-folds', 'no-folds', 'too-many'],
)
def test_other_folds_are_refused(finished, tmp_path, changes, message):
  workdir = Path(shutil.copytree(finished.workdir, tmp_path / 'work'))
  if changes['distill.folds'] == 18:
    shutil.rmtree(workdir / 'runs')
  plan = plan_lib.make_plan(
    _config(finished.data, **changes), workdir, setup=finished.plan.setup
  )
  with pytest.raises(errors.UserError, match=message) as error:
    train.run(plan)
  assert '\n' not in str(error.value)


def test_the_logits_of_another_fold_are_refused(finished, tmp_path):
  workdir = Path(shutil.copytree(finished.workdir, tmp_path / 'work'))
  shutil.rmtree(workdir / 'runs' / 'single_to_multi-s0')
  one, two = (
    workdir / 'teachers' / _teacher_name('single', 0, 'mood', n) / 'mood'
    for n in (1, 2)
  )
  shutil.rmtree(one)
  shutil.copytree(two, one)
  plan = plan_lib.make_plan(
    _config(finished.data), workdir, setup=finished.plan.setup
  )
  with pytest.raises(
    errors.UserError,
    match=rf'^{one}: was made from other inputs: left_out.number was 2, is'
    ' 1; ',
  ):
    train.run(plan)


@pytest.mark.fault
def test_seeds_at_once_end_as_each_alone(finished, tmp_path):
  """A seed on each of two devices, one fold after the other."""
  changes = {'train.seeds_at_once': 2, 'distill.teachers': 1}
  plan = plan_lib.make_plan(
    _config(finished.data, variants=('multi_to_multi',), **changes),
    tmp_path,
    setup=finished.plan.setup,
  )
  train.run(plan)
  for run in plan.runs:
    record = json.loads((tmp_path / 'runs' / run.name / 'DONE').read_text())
    assert record['seeds_at_once'] == 2
  for seed in _SEEDS:
    for number in range(1, _FOLDS + 1):
      for task in ('mood', 'closeness'):
        name = _teacher_name('multi', seed, task, number)
        expected = finished.logits(name, task)
        actual = finished.logits(name, task, tmp_path)
        assert list(actual) == list(expected)
        for uid, logits in expected.items():
          np.testing.assert_allclose(actual[uid], logits, rtol=0, atol=2e-4)


def test_other_processes_write_the_same(finished, tmp_path, monkeypatch):
  monkeypatch.setattr(labelling, '_MIN_BACKGROUND_ROWS', 0)
  workdir = Path(shutil.copytree(finished.workdir, tmp_path / 'work'))
  shutil.rmtree(workdir / 'teachers')
  shutil.rmtree(workdir / 'runs' / 'single_to_multi-s0')
  plan = plan_lib.make_plan(
    _config(finished.data), workdir, setup=finished.plan.setup
  )
  train.run(plan)
  for number in range(1, _FOLDS + 1):
    run = _teacher_name('single', 0, 'mood', number)
    expected = finished.logits(run, 'mood')
    actual = finished.logits(run, 'mood', workdir)
    assert list(actual) == list(expected)
    for uid, logits in expected.items():
      np.testing.assert_array_equal(actual[uid], logits)


def _errors(workdir: Path, reason: str, task: str) -> list[dict]:
  lines = (workdir / 'errors.jsonl').read_text().splitlines()
  rows = map(json.loads, lines)
  return [row for row in rows if (row['reason'], row['task']) == (reason, task)]


@pytest.mark.parametrize('task', ['mood', 'closeness'])
def test_labels_that_teachers_who_did_not_see_them_contradict(finished, task):
  """The mean logits of the student's teachers, of two seeds, by NumPy."""
  source = {'mood': 'demo_sentiment', 'closeness': 'demo_similarity'}[task]
  expected = []
  for number in range(_ROWS['train']):
    uid = f'{task}/train/{number}'
    logits = [
      found[uid]
      for seed in _SEEDS
      for fold in range(1, _FOLDS + 1)
      if uid
      in (
        found := finished.logits(
          _teacher_name('single', seed, task, fold), task
        )
      )
    ]
    assert len(logits) == len(_SEEDS)
    probs = _predictions(task, np.mean(logits, axis=0))
    gold = demo.generate(source, 'train')[number].label
    if task == 'closeness':
      expected.append((number, abs(5 * probs[0] - gold)))
    elif probs.argmax() != gold:
      expected.append((number, probs.max()))
  expected.sort(key=lambda each: -each[1])
  found = _errors(finished.workdir, 'label', task)
  assert [row['row'] for row in found] == [number for number, _ in expected]
  measure = 'confidence' if task == 'mood' else 'error'
  assert [row[measure] for row in found] == pytest.approx(
    [strength for _, strength in expected], abs=1e-5
  )
  first = demo.generate(source, 'train')[found[0]['row']]
  assert found[0]['texts']['a'] == first.text_a


def test_wrong_rows_are_those_of_the_first_seed(finished):
  outputs = np.load(finished.workdir / 'runs/single_to_multi-s0/outputs.npz')
  wrong = np.flatnonzero(
    outputs['mood/dev/logits'].argmax(-1) != outputs['mood/dev/label']
  )
  found = _errors(finished.workdir, 'wrong', 'mood')
  assert {row['row'] for row in found} == {*wrong.tolist()} != set()
  # Each teacher leaves a fold out, so none is compared with the student.
  assert {row['teacher'] for row in found} == {None}
  assert 'with single in config.variants' in _page(finished.workdir)


def _page(workdir: Path) -> str:
  return (workdir / 'report.html').read_text()


def test_rows_that_are_missing_or_others_are_not_shown(finished, tmp_path):
  workdir = Path(shutil.copytree(finished.workdir, tmp_path / 'work'))
  data = Path(shutil.copytree(finished.data, tmp_path / 'data'))
  (data / 'mood-dev.tsv').unlink()
  path = data / 'closeness-train.tsv'
  content = path.read_text()
  path.write_text(content.replace(' ', '  ', 1))
  plan = plan_lib.make_plan(_config(data), workdir, setup=finished.plan.setup)
  report_lib.report(plan)
  assert 'mood (mood-dev.tsv cannot be read)' in _page(workdir)
  assert not _errors(workdir, 'wrong', 'mood')
  assert _errors(workdir, 'wrong', 'closeness')
  assert not _errors(workdir, 'label', 'closeness')
  assert 'closeness-train.tsv has changed since' in _page(workdir)
  path.write_text(content)
  shutil.rmtree(workdir / 'teachers' / 'single-s0-closeness-fold1of3')
  report_lib.report(plan)
  assert not _errors(workdir, 'label', 'closeness')
  assert 'or the logits of the teachers, are not in the work' in _page(workdir)
  assert str(tmp_path) not in (workdir / 'errors.jsonl').read_text()
