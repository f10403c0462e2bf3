"""A finished plan teaches another; the oracles are its own sets, and SciPy."""

import dataclasses
import json
from pathlib import Path
import shutil

import numpy as np
import pytest
from scipy import special

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import shards
from bam_jax.data import sources
from bam_jax.distillation import external
from bam_jax.distillation import logit_sets
from bam_jax.experiments import label
from bam_jax.experiments import labelling
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import predict
from bam_jax.experiments import report
from bam_jax.experiments import train
from bam_jax.tasks import demo
from tests.configs import tiny

_TASKS = ('demo_sentiment', 'demo_similarity')
_STUDENT = 'single_to_multi-s0'


def _logits(directory: Path, task: str) -> tuple[list[str], np.ndarray]:
  fields = shards.logits_fields(demo.TASKS[task].num_outputs)
  columns = shards.open(directory, fields, None)
  return list(columns.uids), columns.fixed('logits')


@pytest.fixture(scope='module')
def taught(tiny_plan, tmp_path_factory) -> Path:
  """A plan whose teachers taught its student, and then wrote `sets/`."""
  workdir = tmp_path_factory.mktemp('plan')
  plan = tiny_plan(workdir, variants=('single', 'single_to_multi'))
  train.run(plan)
  label.label(plan, 'single-s0', workdir / 'sets', None)
  return workdir


@pytest.fixture
def sets(taught, tmp_path) -> Path:
  """A copy of the sets, to be broken."""
  return shutil.copytree(taught / 'sets', tmp_path / 'sets')


@pytest.fixture
def student(tiny_plan, tmp_path, sets):
  """Makes a plan of a student that learns from the sets."""

  def make(**changes):
    return tiny_plan(
      tmp_path / 'work',
      variants=('single_to_multi',),
      **{'distill.logits': str(sets), **changes},
    )

  return make


def _write(directory: Path, task: str, uids, seed: int = 0) -> None:
  task = demo.TASKS[task]
  draw = np.random.default_rng(seed)
  external.write(
    directory,
    task,
    sources.rows_digest(demo.generate(task.name, 'train')),
    uids,
    draw.normal(size=(len(uids), task.num_outputs)),
    'a random teacher',
    f'seed {seed}',
  )


@pytest.mark.parametrize('task', _TASKS)
def test_the_sets_say_what_the_teachers_told_their_own_student(taught, task):
  uids, own = _logits(taught / 'teachers' / f'single-s0-{task}' / task, task)
  found, logits = _logits(taught / 'sets' / task, task)
  assert found == uids
  expected = special.expit(own) if task == 'demo_similarity' else own
  np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6)


def test_a_student_learns_what_it_would_have_from_the_teachers(
  taught, student, trained, tmp_path
):
  """From the same targets, up to the rounding of a sigmoid; to the same end."""
  train.run(student())
  assert trained == [_STUDENT]
  lines = [
    (root / 'runs' / _STUDENT / 'metrics.jsonl').read_text().splitlines()
    for root in (taught, tmp_path / 'work')
  ]
  losses = [
    [json.loads(line)['loss'] for line in each if '"loss"' in line]
    for each in lines
  ]
  assert losses[0]
  np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
  identity = json.loads(
    (tmp_path / 'work' / 'runs' / _STUDENT / 'config.json').read_text()
  )
  assert not any(key.startswith('teacher.') for key in identity)
  assert identity['logits.demo_sentiment.teacher'] == (
    'single-s0-demo_sentiment of tiny, from random weights, tiny'
  )
  report = json.loads((tmp_path / 'work' / 'report.json').read_text())
  assert 'single-s0-demo_similarity of tiny' in json.dumps(report['notes'])


def test_a_student_of_another_vocabulary_and_size(tiny_plan, tmp_path, sets):
  """Letters alone, so that not one id is the teachers'."""
  words = [w for w in demo.vocabulary() if len(w.strip('#[]')) < 4 or '[' in w]
  vocabulary = tmp_path / 'vocab.txt'
  vocabulary.write_text('\n'.join(words) + '\n')
  config = tiny.get_config()
  config.update_from_flattened_dict({
    'variants': ('single_to_multi',),
    'distill.logits': str(sets),
    'model.vocab': str(vocabulary),
    'model.num_layers': 1,
    'data.max_length': 24,
    'multi.max_steps': 2,
    'mesh.data': 1,
  })  # fmt: skip
  work = tmp_path / 'work'
  train.run(plan_lib.make_plan(config_lib.from_config_dict(config), work))
  scores = json.loads((work / 'runs' / _STUDENT / 'DONE').read_text())['scores']
  assert tuple(scores) == _TASKS


@pytest.mark.parametrize('outside_now', [True, False], ids=['then', 'now'])
def test_who_taught_a_finished_run_is_not_mistaken(
  tiny_plan, taught, student, tmp_path, outside_now
):
  """Without a row read: a report or a card would name other teachers."""
  if outside_now:
    workdir, changes = taught, {'distill.logits': str(taught / 'sets')}
    message = r"taught by runs of its plan, but .*\.distill\.logits is now '/"
  else:
    train.run(student())
    workdir, changes = tmp_path / 'work', {}
    message = "taught by external logits, but .* is now ''; restore its"
  plan = tiny_plan(workdir, variants=('single_to_multi',), **changes)
  with pytest.raises(errors.UserError, match=message):
    report.report(plan)


def test_other_logits_are_another_run(student, sets, trained):
  train.run(student())
  uids, _ = _logits(sets / _TASKS[0], _TASKS[0])
  _write(sets / _TASKS[0], _TASKS[0], uids)
  with pytest.raises(
    errors.UserError,
    match=r"logits\.demo_sentiment\.digest was '\w{15}…, is 'seed 0'",
  ):
    train.run(student())
  # One more teacher, so another folder a task.
  (sets / 'one').mkdir()
  for task in _TASKS:
    (sets / task).rename(sets / 'one' / task)
  _write(sets / 'two' / _TASKS[0], _TASKS[0], uids, seed=1)
  with pytest.raises(errors.UserError, match=r'logits\.demo_sentiment\.digest'):
    train.run(student())
  assert trained == [_STUDENT]


def test_a_row_without_logits_is_told_before_any_step(student, sets, trained):
  uids, _ = _logits(sets / _TASKS[1], _TASKS[1])
  _write(sets / _TASKS[1], _TASKS[1], uids[:-1])
  with pytest.raises(
    errors.UserError, match=f'no logits for {uids[-1]}; write logits for the'
  ):
    train.run(student())
  assert trained == []


def test_a_set_that_is_there_is_kept_or_refused(tiny_plan, taught, tmp_path):
  sets = shutil.copytree(taught / 'sets', tmp_path / 'sets')
  plan = tiny_plan(taught, variants=('single', 'single_to_multi'))
  manifest = sets / _TASKS[0] / 'manifest.json'
  before = manifest.stat().st_mtime_ns
  label.label(plan, 'single-s0', sets, None)
  assert manifest.stat().st_mtime_ns == before
  with pytest.raises(
    errors.UserError, match=r'other inputs: teacher.*into another --output'
  ):
    label.label(plan, _STUDENT, sets, None)
  assert manifest.stat().st_mtime_ns == before


def test_a_folder_that_cannot_be_made_is_told_before_any_row_is_labelled(
  tiny_plan, taught, tmp_path, monkeypatch
):
  (tmp_path / 'file').touch()
  monkeypatch.delattr(labelling, 'write_logits')
  plan = tiny_plan(taught, variants=('single', 'single_to_multi'))
  for output in (tmp_path / 'file', tmp_path / 'file' / 'sets'):
    with pytest.raises(errors.UserError, match=f'--output={output}: .*be made'):
      label.label(plan, 'single-s0', output, None)


def _write_table(folder: Path, examples) -> None:
  folder.mkdir()
  lines = ['text\tlabel', *(f'{e.text_a}\t{e.label}' for e in examples)]
  for name in ('train', 'dev'):
    (folder / f'{name}.tsv').write_text('\n'.join(lines) + '\n')


def _config(folder: Path, **dev) -> config_lib.Config:
  """A plan of one task whose files are in the folder."""
  config = tiny.get_config()
  config.custom_tasks.mood = config_lib.custom_task(
    labels=('0', '1'), train='train.tsv', text=('text',), **dev
  )
  config.update_from_flattened_dict({
    'tasks': ('mood',),
    'variants': ('single',),
    'single.max_steps': 2,
    'mesh.data': 1,
    'data.dir': str(folder),
  })  # fmt: skip
  return config_lib.from_config_dict(config)


def _read_as_student(config: config_lib.Config, folder: Path):
  """Reads the sets of the rows in `many`, for a plan that trains on these."""
  data = dataclasses.replace(config.data, dir=str(folder / 'many'))
  student = plan_lib.make_plan(
    dataclasses.replace(config, data=data), folder / 'student'
  )
  train.prepare(student)
  rows, task = student.features['mood']['train'], student.tasks['mood']
  sets = external.open_set(folder / 'sets' / 'mood', rows, task)
  found, logits = logit_sets.read(sets, rows, task)
  assert len(logits) == len(rows)
  return found, logits


def test_rows_of_another_plan_are_labelled(tmp_path):
  """Those of another folder, in another number, by a plan of other rows."""
  examples = demo.generate('demo_sentiment', 'train')
  _write_table(tmp_path / 'few', examples[:12])
  _write_table(tmp_path / 'many', examples[12:52])
  config = _config(tmp_path / 'few', dev='dev.tsv')
  plan = plan_lib.make_plan(config, tmp_path / 'work')
  train.run(plan)
  for path in (tmp_path / 'none', tmp_path / 'many' / 'train.tsv'):
    with pytest.raises(
      errors.UserError, match=f'--input={path}: is not a folder; give the fol'
    ):
      label.label(plan, 'single-s0', tmp_path / 'sets', str(path))
  label.label(plan, 'single-s0', tmp_path / 'sets', str(tmp_path / 'many'))
  found, logits = _read_as_student(config, tmp_path)
  assert len(found) == len(logits) == 40
  # The last checkpoint's own predictions, which serve texts as well.
  model = predict.load_model(plan, 'single-s0')
  encoded = model.encode('mood', [(e.text_a,) for e in examples[12:52]])
  expected = [each.prediction.probabilities for each in model.predict(encoded)]
  np.testing.assert_allclose(
    special.softmax(logits, axis=-1), expected, rtol=0, atol=1e-5
  )
  # Rows to be predicted are those of a test split.
  with pytest.raises(
    errors.UserError, match='none of the tasks mood has a test file; add one'
  ):
    predict.predict(plan, 'single-s0')


def test_development_rows_of_other_files_are_drawn_as_the_student_draws_them(
  tmp_path,
):
  """The teacher's plan has recorded those of its own file."""
  examples = demo.generate('demo_sentiment', 'train')
  _write_table(tmp_path / 'few', examples[:20])
  _write_table(tmp_path / 'many', examples[20:80])
  config = _config(tmp_path / 'few', dev_share=0.2)
  train.run(plan_lib.make_plan(config, tmp_path / 'work'))
  plan = plan_lib.make_plan(config, tmp_path / 'work')
  label.label(plan, 'single-s0', tmp_path / 'sets', str(tmp_path / 'many'))
  found, logits = _read_as_student(config, tmp_path)
  assert len(found) == len(logits) == 48


def test_rows_that_are_nowhere_else_are_refused(tiny_plan, taught, tmp_path):
  plan = tiny_plan(taught, variants=('single', 'single_to_multi'))
  with pytest.raises(
    errors.UserError, match='file of demo_sentiment is not read'
  ):
    label.label(plan, 'single-s0', tmp_path / 'sets', 'elsewhere')
