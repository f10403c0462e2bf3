"""A whole plan of tiny models, run in this process.

Oracles: scikit-learn, SciPy and NumPy over the raw rows and the saved logits;
the structure of report.json as documented; digests of the parameters.
"""

import csv
import html
import json
import logging
from pathlib import Path
import shutil
import statistics

import jax
import numpy as np
import pytest
import scipy.stats
from sklearn import metrics as sk_metrics

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import schema
from bam_jax.data import shards
from bam_jax.distillation import logit_sets
from bam_jax.experiments import export
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import predict
from bam_jax.experiments import records
from bam_jax.experiments import report
from bam_jax.experiments import train
from bam_jax.runtime import telemetry
from bam_jax.runtime import trackers
from bam_jax.tasks import demo
from bam_jax.training import loop

_ROWS = {'train': 37, 'dev': 23, 'test': 11}
_LABELS = ('down', 'up')
_SEEDS = (0, 1)
_STEPS = 6
_STUDENT = 'single_to_multi-s0'
_TEACHER = ('single-s0-mood', 'mood')


def _write_tables(directory: Path) -> None:
  """`mood`, of two classes, and `closeness`, a score of 0-5, as TSV files."""
  for name, source in (
    ('mood', 'demo_sentiment'),
    ('closeness', 'demo_similarity'),
  ):
    for split, rows in _ROWS.items():
      lines = ['a\tb\tlabel']
      for example in demo.generate(source, split)[:rows]:
        label = '' if split == 'test' else example.label
        if split != 'test' and name == 'mood':
          label = _LABELS[example.label]
        lines.append(f'{example.text_a}\t{example.text_b or "-"}\t{label}')
      path = directory / f'{name}-{split}.tsv'
      path.write_text('\n'.join(lines) + '\n')


def _config(data: Path, own=None, **changes) -> config_lib.Config:
  config = config_lib.default_config()
  config.custom_variants.update(own or {})
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
    'seeds': _SEEDS,
    'data.dir': str(data),
    'mesh.data': 2,
    'data.max_length': 32,
    'model.arch': 'tiny',
    'packing.row_length': 32,
    'packing.slots': 4,
    'packing.row_buckets': (8,),
    'packing.eval_rows': 8,
    'single.max_steps': _STEPS,
    'single.batch_size': 8,
    'multi.max_steps': _STEPS,
    'multi.batch_size': 8,
    'train.log_every': 2,
    'train.tensorboard': False,
    **changes,
  })  # fmt: skip
  return config_lib.from_config_dict(config)


class _Plan:
  """A finished plan: its plan, and what its students learnt from."""

  def __init__(self, data: Path, workdir: Path):
    self.data = data
    self.workdir = workdir
    self.targets: list[tuple[str, list[Path], np.ndarray]] = []
    _write_tables(data)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(
        logit_sets, 'read_probs', self._recorded(logit_sets.read_probs)
      )
      self.plan = plan_lib.make_plan(_config(data), workdir)
      train.run(self.plan)

  def _recorded(self, targets):
    def recorded(sets, features, task, *arguments):
      result = targets(sets, features, task, *arguments)
      directories = [logits.directory for parts in sets for logits in parts]
      self.targets.append((task.name, directories, result))
      return result

    return recorded

  def another(self, workdir: Path, **changes) -> plan_lib.Plan:
    """A plan of another configuration that shares the compiled programs."""
    plan = plan_lib.make_plan(
      _config(self.data, **changes), workdir, setup=self.plan.setup
    )
    return plan

  def record(self, run: str) -> dict:
    return json.loads((self.workdir / 'runs' / run / 'DONE').read_text())

  def columns(self, run: str, task: str) -> shards.Columns:
    width = self.plan.tasks[task].num_outputs
    return shards.open(
      self.workdir / 'teachers' / run / task, shards.logits_fields(width), None
    )


@pytest.fixture(scope='module')
def finished(tmp_path_factory) -> _Plan:
  return _Plan(tmp_path_factory.mktemp('data'), tmp_path_factory.mktemp('plan'))


@pytest.fixture
def workdir(finished, tmp_path) -> Path:
  """A copy of the finished work directory, to be broken."""
  return Path(shutil.copytree(finished.workdir, tmp_path / 'work'))


def _snapshot(directory: Path) -> dict[str, tuple[int, bytes]]:
  """Path -> time of the last change and content, of all files."""
  return {
    str(path.relative_to(directory)): (
      path.stat().st_mtime_ns,
      path.read_bytes(),
    )
    for path in sorted(directory.rglob('*'))
    if path.is_file()
  }


def _gold(data: Path, task: str, split: str = 'dev') -> list[str]:
  lines = (data / f'{task}-{split}.tsv').read_text().splitlines()[1:]
  return [line.split('\t')[-1] for line in lines]


def _run_names() -> list[str]:
  return [
    f'{variant}-s{seed}{part}'
    for seed in _SEEDS
    for variant, parts in (
      ('single', ('-mood', '-closeness')),
      ('multi', ('',)),
      ('single_to_single', ('-mood', '-closeness')),
      ('multi_to_multi', ('',)),
      ('single_to_multi', ('',)),
    )
    for part in parts
  ]


def test_scores_are_those_of_the_saved_logits(finished):
  for name in _run_names():
    outputs = np.load(finished.workdir / 'runs' / name / 'outputs.npz')
    scores = finished.record(name)['scores']
    for task in scores:
      logits = outputs[f'{task}/dev/logits']
      assert list(outputs[f'{task}/dev/uid']) == [
        f'{task}/dev/{row}' for row in range(_ROWS['dev'])
      ]
      gold = _gold(finished.data, task)
      label = outputs[f'{task}/dev/label']
      if task == 'mood':
        assert [_LABELS[index] for index in label] == gold
        expected = {
          'accuracy': 100
          * sk_metrics.accuracy_score(
            gold, [_LABELS[best] for best in logits.argmax(-1)]
          )
        }
      else:
        gold, predicted = np.array(gold, float), logits[:, 0].astype(float)
        np.testing.assert_allclose(label, gold, rtol=1e-6)
        predicted = 5 / (1 + np.exp(-predicted))
        expected = {
          'pearson': 100 * scipy.stats.pearsonr(gold, predicted)[0],
          'spearman': 100 * scipy.stats.spearmanr(gold, predicted)[0],
        }
      assert scores[task]['dev'] == pytest.approx(expected, abs=1e-3)


def test_records_say_how_good_the_logits_are(finished):
  """On dev of every run, on the training rows of those that teach."""
  for run in finished.plan.runs:
    quality = finished.record(run.name)['quality']
    teaches = run.variant in ('single', 'multi')
    outputs = np.load(finished.workdir / 'runs' / run.name / 'outputs.npz')
    assert sorted(quality) == sorted(run.tasks)
    for task, found in quality.items():
      assert set(found) == ({'dev', 'train'} if teaches else {'dev'})
      for split, values in found.items():
        logits = outputs[f'{task}/dev/logits']
        if split == 'train':
          logits = finished.columns(run.name, task).fixed('logits')
        logits = np.array(logits, np.float64).reshape(_ROWS[split], -1)
        gold = _gold(finished.data, task, split)
        if task == 'mood':
          probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
          gold = [_LABELS.index(label) for label in gold]
          expected = sk_metrics.log_loss(gold, probs)
          assert values['log_loss'] == pytest.approx(expected, rel=1e-6)
        else:
          predicted = 1 / (1 + np.exp(-logits[:, 0]))
          expected = np.mean(predicted - np.array(gold, float) / 5)
          assert values['bias'] == pytest.approx(expected, abs=1e-6)


def test_the_report_has_the_documented_structure(finished):
  report = json.loads((finished.workdir / 'report.json').read_text())
  assert tuple(report['variants']) == config_lib.VARIANTS
  for variant, found in report['variants'].items():
    single = variant in ('single', 'single_to_single')

    def score(task, metric, seed, variant=variant, single=single):
      run = f'{variant}-s{seed}' + (f'-{task}' if single else '')
      return finished.record(run)['scores'][task]['dev'][metric]

    values = {
      task: {
        metric: [score(task, metric, seed) for seed in _SEEDS]
        for metric in names
      }
      for task, names in (
        ('mood', ['accuracy']),
        ('closeness', ['pearson', 'spearman']),
      )
    }
    assert found['seeds'] == 2
    assert found['tasks'] == {
      task: {
        metric: pytest.approx(statistics.median(items))
        for metric, items in by_metric.items()
      }
      for task, by_metric in values.items()
    }
    averages = [
      (accuracy + spearman) / 2
      for accuracy, spearman in zip(
        values['mood']['accuracy'], values['closeness']['spearman']
      )
    ]
    assert found['average'] == pytest.approx(statistics.median(averages))


def test_a_report_warns_of_runs_of_few_steps(finished):
  texts = [
    (finished.workdir / name).read_text(encoding='utf-8')
    for name in ('report.md', 'report.html')
  ]
  steps = finished.record('multi-s0')['steps']
  for text in texts:
    text = ' '.join(text.replace('\\', '').split())
    assert (
      'Warning: multi: fewer than 50 training steps, of mood + closeness'
      f' ({steps}); raise config.multi.max_steps.'
    ) in text


def test_a_report_names_versions_and_its_first_lines_end_the_log(
  finished, workdir, caplog
):
  plan = finished.another(workdir)
  done = plan.workspace.read_record('multi-s0')
  assert f'jax {jax.__version__}' in done['versions']
  plan.workspace.write_record('multi-s0', done | {'versions': 'jax 0.0.1'})
  with caplog.at_level(logging.INFO):
    report.report(plan)
  said = [each.getMessage() for each in caplog.records]
  shown = html.unescape((workdir / 'report.md').read_text()).split('\n\n')
  said = said[said.index(shown[1]) :]
  assert said[0].startswith('On average') and said[-1].startswith('report: ')
  assert said[:-1] == shown[1 : len(said)]
  notes = json.loads((workdir / 'report.json').read_text())['notes']
  assert notes['trained with'] == f'jax 0.0.1; {done["versions"]}'


def test_every_score_is_a_line_of_the_table(finished):
  with (finished.workdir / 'scores.csv').open() as file:
    lines = list(csv.DictReader(file))
  rows = [line for line in lines if line['variant'] in config_lib.VARIANTS]
  assert len(rows) == len(config_lib.VARIANTS) * len(_SEEDS) * 3
  # Of the two baselines, which have no seeds.
  assert len(lines) == len(rows) + 2 * 3
  for row in rows:
    single = row['variant'] in ('single', 'single_to_single')
    name = f'{row["variant"]}-s{row["seed"]}'
    record = finished.record(f'{name}-{row["task"]}' if single else name)
    assert row['split'] == 'dev'
    assert (
      float(row['value']) == record['scores'][row['task']]['dev'][row['metric']]
    )


def test_one_program_serves_the_plan(finished):
  # One to train, one to predict, one for the state before step 0, one for the
  # frozen encoder, and two that split the layers of a model and of an encoder.
  assert finished.plan.setup.programs.compilations == 6
  assert len(finished.plan.runs) == 14


@pytest.mark.parametrize('seeds', [1, 2])
def test_what_is_compiled_first_is_the_first_step(
  finished, tmp_path, monkeypatch, seeds
):
  buckets = {'packing.row_buckets': (2, 4, 6, 8)}
  changes = buckets | {'train.seeds_at_once': seeds}
  plan, shapes = finished.another(tmp_path, **changes), []

  def stop(specs, *_):
    rows = max(len(spec.batches(0)['input_ids']) for spec in specs)
    shapes.append((len(specs), rows))
    raise errors.RetryError('no step is taken')

  monkeypatch.setattr(loop, 'train', stop)
  monkeypatch.setattr(
    plan.setup.programs,
    'compile_ahead',
    lambda packing, seeds, first: shapes.append(first),
  )
  with pytest.raises(errors.RetryError):
    train.run(plan)
  assert shapes[0] == shapes[1]
  assert shapes[0][0] == seeds


def test_seeds_at_once_end_as_each_alone(finished, tmp_path, trained, caplog):
  """A seed on each of two devices."""
  changes = {'train.seeds_at_once': 2}
  variants = ('single', 'single_to_multi')
  with caplog.at_level(logging.INFO):
    train.run(finished.another(tmp_path, variants=variants, **changes))
  # The log has the mean, which is the median, of the two seeds' scores.
  scores = [
    json.loads((tmp_path / f'runs/single-s{seed}-mood/DONE').read_text())
    for seed in (0, 1)
  ]
  first, second = (each['scores']['mood']['dev']['accuracy'] for each in scores)
  logged = [each.getMessage() for each in caplog.records]
  assert (
    'single-s0-mood and 1 other seed, dev scores at the end (medians): mood'
    f' accuracy {(first + second) / 2:.1f}'
  ) in logged
  assert trained[:2] == ['single-s0-mood', 'single-s1-mood']
  for name in _run_names():
    if not name.startswith(tuple(f'{variant}-s' for variant in variants)):
      continue
    record = json.loads((tmp_path / 'runs' / name / 'DONE').read_text())
    assert record['seeds_at_once'] == 2
    with (
      np.load(tmp_path / 'runs' / name / 'outputs.npz') as actual,
      np.load(finished.workdir / 'runs' / name / 'outputs.npz') as expected,
    ):
      assert actual.files == expected.files
      for key in actual.files:
        if key.endswith('uid'):
          np.testing.assert_array_equal(actual[key], expected[key])
        else:
          np.testing.assert_allclose(actual[key], expected[key], atol=2e-4)
    curves = [
      (directory / 'runs' / name / 'metrics.jsonl').read_text().splitlines()
      for directory in (tmp_path, finished.workdir)
    ]
    for actual, expected in zip(*curves, strict=True):
      actual, expected = json.loads(actual), json.loads(expected)
      assert actual.keys() == expected.keys()
      if 'loss' in expected:
        np.testing.assert_allclose(actual['loss'], expected['loss'], rtol=1e-4)


def test_no_two_runs_end_alike(finished):
  digests = {finished.record(name)['parameters'] for name in _run_names()}
  assert len(digests) == len(_run_names()) == 14


def test_teachers_label_every_training_row(finished):
  teaching = {
    f'{variant}-s{seed}{part}': tasks
    for seed in _SEEDS
    for variant, part, tasks in (
      ('single', '-mood', ['mood']),
      ('single', '-closeness', ['closeness']),
      ('multi', '', ['closeness', 'mood']),
    )
  }
  folders = (finished.workdir / 'teachers').iterdir()
  assert {
    folder.name: sorted(path.name for path in folder.iterdir())
    for folder in folders
  } == teaching
  for run, tasks in teaching.items():
    for task in tasks:
      columns = finished.columns(run, task)
      # 37 is no multiple of what a batch holds.
      assert list(columns.uids) == [
        f'{task}/train/{row}' for row in range(_ROWS['train'])
      ]
      assert np.isfinite(columns.fixed('logits')).all()


def test_students_learn_from_teachers_of_their_own_seed(finished):
  expected = [
    (task, f'{teacher}-s{seed}{f"-{task}" if teacher == "single" else ""}')
    for seed in _SEEDS
    for teacher in ('single', 'multi', 'single')
    for task in ('mood', 'closeness')
  ]
  assert [
    (task, *(path.parent.name for path in paths))
    for task, paths, _ in finished.targets
  ] == expected
  for (task, run), (_, _, targets) in zip(expected, finished.targets):
    logits = np.array(finished.columns(run, task).fixed('logits'), np.float64)
    logits = logits.reshape(_ROWS['train'], -1)
    if task == 'mood':
      exponentials = np.exp(logits)
      predictions = exponentials / exponentials.sum(-1, keepdims=True)
    else:
      predictions = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(targets, predictions, rtol=0, atol=1e-6)


@pytest.mark.parametrize('best', [False, True], ids=['last', 'best'])
def test_every_trained_model_can_be_restored(finished, best):
  for run in finished.plan.runs:
    record = finished.record(run.name)
    assert record['steps'] == _STEPS
    params = finished.plan.restore_params(run.name, best)
    # Scored at the end alone, so the last checkpoint is the best one.
    assert records.parameters_digest(params) == record['parameters']


def test_test_rows_are_predicted_without_teachers(finished, workdir):
  shutil.rmtree(workdir / 'teachers')
  plan = finished.another(workdir)
  predict.predict(plan, 'single_to_multi-s1')
  directory = workdir / 'predictions' / 'single_to_multi-s1'
  for task in ('mood', 'closeness'):
    lines = (directory / f'{task}-test.tsv').read_text().splitlines()
    rows = [line.split('\t') for line in lines[1:]]
    assert [row[0] for row in rows] == [
      f'{task}/test/{row}' for row in range(_ROWS['test'])
    ]
    for row in rows:
      if task == 'mood':
        up = float(row[3])
        assert float(row[2]) + up == pytest.approx(1, abs=2e-4)
        assert up == 0.5 or row[1] == _LABELS[up > 0.5]
      else:
        assert 0 <= float(row[1]) <= 5
  assert not (workdir / 'teachers').exists()
  with pytest.raises(errors.UserError, match='--group=none: no such group; g'):
    predict.predict(plan, 'none')


@pytest.mark.parametrize('mode', ['predict', 'report'])
def test_a_trained_model_serves_its_own_configuration_alone(
  finished, workdir, mode
):
  before = _snapshot(workdir)
  config = _config(finished.data, **{'model.regression_head': 'linear'})
  plan = plan_lib.make_plan(config, workdir)
  with pytest.raises(
    errors.UserError,
    match=r"config.model.regression_head was 'sigmoid', is 'linear'",
  ):
    report.report(plan) if mode == 'report' else predict.predict(
      plan, 'multi-s0'
    )
  assert _snapshot(workdir) == before


def test_other_labels_are_not_predicted(finished, workdir):
  config = _config(finished.data, **{'custom_tasks.mood.labels': _LABELS[::-1]})
  with pytest.raises(
    errors.UserError,
    match=r"custom_tasks.mood.labels was \['down', 'up'\], is \['up', 'down'\]",
  ):
    predict.predict(plan_lib.make_plan(config, workdir), 'multi-s0')
  assert not (workdir / 'predictions').exists()


def test_a_rerun_trains_nothing(finished, workdir, trained):
  before = _snapshot(workdir)
  train.run(finished.another(workdir))
  after = _snapshot(workdir)
  assert trained == []
  assert {name: content for name, (_, content) in before.items()} == {
    name: content for name, (_, content) in after.items()
  }
  written = {name for name in after if after[name] != before[name]}
  assert written <= {
    'config.json', 'report.json', 'report.md', 'report.html', 'report.tex',
    'scores.csv', 'errors.jsonl',
  } | {name for name in after if name.endswith('.png')}  # fmt: skip


def test_auto_pooling_is_recorded_as_what_it_stands_for(
  finished, workdir, trained
):
  train.run(finished.another(workdir, **{'model.pooling': 'auto'}))
  assert trained == []


def test_runs_older_than_a_field_serve_on(finished, workdir, trained):
  """As before the field: no record has it, nor the digests of it."""
  records = {}
  for name in _run_names():
    path = workdir / 'runs' / name / 'config.json'
    record = json.loads(path.read_text())
    del record['config.model.remat'], record['digest']
    for key in record:
      if key.startswith('teacher.'):
        record[key] = schema.digest(records[key.removeprefix('teacher.')])
    records[name] = record
    path.write_text(json.dumps(record))
  train.run(finished.another(workdir))
  assert trained == []


def test_what_was_removed_is_made_again(finished, workdir, trained):
  """A teacher without its logits, and a student without its teacher's."""
  teacher, task = _TEACHER
  for removed in ('runs/multi-s0', 'teachers/multi-s0', f'runs/{_STUDENT}'):
    shutil.rmtree(workdir / removed)
  logits = workdir / 'teachers' / teacher / task
  before = _snapshot(logits)
  shutil.rmtree(logits)
  # As after a stop between writing the logits and saying how good they are.
  plan = finished.another(workdir)
  done = plan.workspace.read_record('single-s0-closeness')
  quality = done['quality']
  plan.workspace.write_record('single-s0-closeness', done | {'quality': {}})
  train.run(plan)
  assert trained == ['multi-s0', _STUDENT]
  for name in trained:
    record = json.loads((workdir / 'runs' / name / 'DONE').read_text())
    # The same seed twice: bit by bit the same.
    assert record['parameters'] == finished.record(name)['parameters']
    assert record['scores'] == finished.record(name)['scores']
  del quality['closeness']['dev']
  done = plan.workspace.read_record('single-s0-closeness')
  assert done['quality'] == quality
  for name, (_, content) in _snapshot(logits).items():
    assert content == before[name][1], name


def test_a_run_tells_how_many_examples_of_each_task_it_saw(finished):
  name = f'multi-s{_SEEDS[0]}'
  curve = (finished.workdir / 'runs' / name / 'metrics.jsonl').read_text()
  lines = [json.loads(line) for line in curve.splitlines()]
  record = finished.record(name)
  seen = {
    task: sum(line.get(f'examples/{task}', 0) for line in lines)
    for task in record['shares']
  }
  config = finished.plan.config.multi
  assert sum(seen.values()) == record['steps'] * config.batch_size
  assert sum(record['shares'].values()) == pytest.approx(1.0)
  assert record['loss_weights'] == dict.fromkeys(record['shares'], 1.0)
  for task, share in record['shares'].items():
    assert seen[task] / sum(seen.values()) == pytest.approx(share, abs=0.1)


def test_an_ablation_is_added_to_a_finished_plan(finished, workdir, trained):
  """Teachers and student that are there serve; the report has all three."""
  plan = finished.another(
    workdir,
    variants=('single', 'single_to_multi', 'gold_alone'),
    own={
      'gold_alone': config_lib.custom_variant(
        'single_to_multi',
        changes={'distill': {'annealing': 'constant', 'constant': 1.0}},
      )
    },
  )
  train.run(plan)
  assert trained == [f'gold_alone-s{seed}' for seed in _SEEDS]
  report = json.loads((workdir / 'report.json').read_text())
  assert list(report['variants']) == ['single', 'single_to_multi', 'gold_alone']
  curve = (workdir / 'runs' / 'gold_alone-s0' / 'metrics.jsonl').read_text()
  told = [json.loads(line) for line in curve.splitlines()]
  assert {line.get('gold_weight', 1.0) for line in told} == {1.0}
  for name in ('report.md', 'report.html'):
    assert 'gold alone' in (workdir / name).read_text()


def test_runs_send_their_lines_to_trackers(finished, workdir, monkeypatch):
  """The libraries themselves: tests/runtime/test_trackers.py."""
  sent, names = {}, []

  class Recorder:
    def __init__(self, project, run, settings, run_id):
      names.append((project, run, run_id))
      assert settings['run.learning_rate'] == 1e-4
      self.run_id, self.run = f'id of {run}', run

    def write(self, step, seconds, values):
      sent.setdefault(self.run, []).append({'step': step, 'time': seconds})
      sent[self.run][-1] |= values

    def close(self, is_finished):
      assert is_finished
      names.append(self.run)

  monkeypatch.setitem(trackers._TRACKERS, 'wandb', Recorder)
  monkeypatch.setattr(trackers, 'check', lambda names: None)
  changes = {'train.trackers': ('wandb',)}
  # What is finished stays so.
  train.run(finished.another(workdir, **changes))
  assert not names
  run = 'multi-s0'
  shutil.rmtree(workdir / 'runs' / run)
  train.run(finished.another(workdir, **changes))
  assert names == [(finished.plan.config.name, run, None), run]
  assert sent == {run: telemetry.read(workdir / 'runs' / run / 'metrics.jsonl')}


def test_scoring_again_finds_the_same(finished, workdir, trained):
  before = {
    name: content
    for name, (_, content) in _snapshot(workdir).items()
    if not name.endswith('.npz')
  }
  train.evaluate(finished.another(workdir))
  after = _snapshot(workdir)
  assert trained == []
  assert before == {name: after[name][1] for name in before}


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'single.learning_rate': 1e-3},
      r'single-s0-mood: was trained with other settings or other data'
      r' \(config.single.learning_rate was 5e-05, is 0.001\)',
    ),
    (
      {'multi.batch_size': 4},
      r'/multi-s0: .*\(config.multi.batch_size was 8, is 4\)',
    ),
    (
      {'distill.temperature': 2.0},
      r'single_to_single-s0-mood: .*\(config.distill.temperature was 1.0, is',
    ),
    (
      {'model.regression_head': 'linear'},
      r"config.model.regression_head was 'sigmoid', is 'linear'",
    ),
    (
      {'model.pooling': 'mean'},
      r"config.model.pooling was 'cls', is 'mean'",
    ),
    ({'data.max_length': 24}, r'features/mood/train: .* max_length was 32'),
    (
      {'custom_tasks.mood.labels': _LABELS[::-1]},
      r'features/mood/train: was made from other inputs',
    ),
  ],
  ids=[
    'learning-rate', 'batch', 'temperature', 'head', 'pooling',
    'length', 'label-order',
  ],
)  # fmt: skip
def test_another_configuration_is_refused(
  finished, workdir, trained, changes, message
):
  before = _snapshot(workdir)
  for command in (train.run, train.evaluate):
    plan = plan_lib.make_plan(_config(finished.data, **changes), workdir)
    with pytest.raises(errors.UserError, match=message) as error:
      command(plan)
    assert '\n' not in str(error.value)
  assert trained == []
  assert _snapshot(workdir) == before


@pytest.mark.parametrize('split', ['train', 'dev'])
@pytest.mark.parametrize(
  ('old', 'new'),
  [('\tup\n', '\tdown\n'), ('the ', 'a ')],
  ids=['label', 'text'],
)
def test_other_rows_are_refused(
  finished, workdir, trained, tmp_path, split, old, new
):
  data = Path(shutil.copytree(finished.data, tmp_path / 'data'))
  path = data / f'mood-{split}.tsv'
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, 1))
  before = _snapshot(workdir)
  with pytest.raises(
    errors.UserError,
    match=f'mood/{split}: was made from other inputs: rows has changed',
  ):
    train.run(plan_lib.make_plan(_config(data), workdir))
  assert trained == []
  assert _snapshot(workdir) == before


def _rewrite(directory: Path, rows=slice(None), labels=_LABELS) -> None:
  """Writes a teacher's set again, sound in itself but not what it was."""
  fields = shards.logits_fields(2)
  columns = shards.open(directory, fields, None)
  records = [
    {'uid': uid, 'logits': np.array(logits)}
    for uid, logits in zip(columns.uids, columns.fixed('logits'))
  ]
  metadata = {**columns.metadata, 'labels': list(labels)}
  shards.write(directory, fields, records[rows], columns.fingerprint, metadata)


def _flip_bit(directory: Path) -> None:
  path = next(directory.glob('part-*'))
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def _exchange(directory: Path) -> None:
  shutil.rmtree(directory)
  other = str(directory).replace('single-s0', 'single-s1')
  shutil.copytree(other, directory)


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (
      lambda directory: _rewrite(directory, rows=slice(-1)),
      r'the teacher has no logits for mood/train/36; remove',
    ),
    (
      lambda directory: _rewrite(directory, labels=_LABELS[::-1]),
      r"its logits have the label order \['up', 'down'\], but mood has"
      r" \['down', 'up'\]",
    ),
    (_exchange, r'was made from other inputs: parameters has changed'),
    (_flip_bit, r'part-00000-of-00001\.tfrecord: is damaged'),
  ],
  ids=['missing-row', 'label-order', 'other-teacher', 'flipped-bit'],
)
def test_an_unfit_teacher_set_stops_before_step_0(
  finished, workdir, trained, damage, message
):
  shutil.rmtree(workdir / 'runs' / _STUDENT)
  directory = workdir.joinpath('teachers', *_TEACHER)
  damage(directory)
  with pytest.raises(errors.UserError, match=message) as error:
    train.run(finished.another(workdir))
  assert str(error.value).startswith(str(directory))
  assert trained == []
  assert [path.name for path in (workdir / 'runs' / _STUDENT).iterdir()] == [
    'config.json'
  ]


def test_a_loss_that_is_not_finite_stops_the_run(finished, tmp_path):
  plan = finished.another(tmp_path, **{'single.learning_rate': 1e30})
  with pytest.raises(
    errors.UserError,
    match=r'^single-s0-mood: the loss of mood is not finite at step \d;'
    r' lower the learning rate \(1e\+30\)',
  ):
    train.run(plan)
  assert not list(tmp_path.rglob('DONE'))


def test_models_are_exported_by_group(finished):
  export.export(finished.plan, 'single_to_multi-s1')
  export.export(finished.plan, 'single-s0')
  exports = finished.workdir / 'exports'
  assert sorted(p.name for p in (exports / 'single_to_multi-s1').iterdir()) == [
    'all', 'closeness', 'mood',
  ]  # fmt: skip
  assert sorted(p.name for p in (exports / 'single-s0').iterdir()) == [
    'closeness', 'mood',
  ]  # fmt: skip
  text = (exports / 'single_to_multi-s1' / 'mood' / 'README.md').read_text()
  assert 'with the teachers single-s1-mood, single-s1-closeness' in text


def test_a_group_to_export_must_be_there(finished):
  with pytest.raises(errors.UserError, match='--group=none-s0: no such group'):
    export.export(finished.plan, 'none-s0')
