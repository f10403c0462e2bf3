"""The Python API: the README's example and the guide run at a small size."""

from collections.abc import Iterator
import json
import os
from pathlib import Path
import signal
import subprocess
import sys

import documents
import numpy as np
import pandas as pd
import pytest

import bam_jax
from bam_jax import api
from bam_jax import api_tasks
from bam_jax import config as config_lib
from bam_jax import schema
from bam_jax.experiments import predict
from bam_jax.experiments import train
from bam_jax.inference import own_file
from bam_jax.training import programs
from bam_jax.training import setup

_README = documents.ROOT / 'README.md'
_GUIDE = documents.ROOT / 'docs' / 'guides' / 'python.md'
# What makes a plan small; the rest is as written.
_TINY = {
  'variants': ('single', 'single_to_multi'),
  'model.arch': 'tiny',
  'model.num_layers': 1,
  'data.max_length': 32,
  'packing.row_length': 32,
  'packing.slots': 4,
  'packing.row_buckets': (16,),
  'packing.eval_rows': 16,
  'distill.folds': 1,
  'single.min_steps': 0,
  'single.max_steps': 2,
  'single.batch_size': 8,
  'multi.min_steps': 0,
  'multi.max_steps': 2,
  'multi.batch_size': 8,
  'plan.baselines': False,
  'train.tensorboard': False,
  'mesh.data': 1,
}
_TICKETS = pd.DataFrame(
  {
    'subject': ['the boat', 'a "horrible" fire', 'soup, bread\u2028'] * 10,
    'body': [f'it was {i} .' for i in range(30)],
    'urgency': ['low', 'high', 'normal'] * 10,
    'since': pd.Timestamp('2026-01-01'),
  },
  index=range(100, 130),
)
_REVIEWS = [{'review': f'a car {i}', 'stars': 1 + i % 5} for i in range(20)]


def _fit(tasks, *, init, workdir, config=None, overrides=None) -> api.Result:
  """`api.fit` of a small model with random weights."""
  changes = (overrides or {}) | _TINY
  return api.fit(
    tasks, init='', workdir=workdir, config=config, overrides=changes
  )


@pytest.fixture(scope='module', autouse=True)
def place(tmp_path_factory) -> Iterator[Path]:
  """A folder with the files that the README's example reads."""
  folder = tmp_path_factory.mktemp('api')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    patch.setattr(bam_jax, 'fit', _fit)
    # It would change JAX's settings for all tests after these.
    patch.setattr(setup, 'configure_jax', lambda config, workdir: None)
    _TICKETS.to_csv('tickets.csv', index=False)
    Path('stars').mkdir()
    for split in ('train', 'dev'):
      lines = map(json.dumps, _REVIEWS)
      Path('stars', f'{split}.jsonl').write_text('\n'.join(lines))
    yield folder


def _run(page: Path) -> dict:
  """Runs the blocks of Python of a page, one after the other."""
  names: dict[str, object] = {}
  for language, text in documents.fences(page):
    if language == 'python':
      exec(compile(text, str(page), 'exec'), names)
  return names


@pytest.fixture(scope='module')
def readme(place) -> dict:
  """The names that the README's example has assigned, at a second attempt.

  Ctrl-C ends the first one in its second training step.
  """
  train_step, steps = programs.Programs.train_step, []
  handler = signal.getsignal(signal.SIGINT)

  def interrupting(self, *arguments):
    steps.append(None)
    if len(steps) == 2:
      os.kill(os.getpid(), signal.SIGINT)
    return train_step(self, *arguments)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(programs.Programs, 'train_step', interrupting)
    with pytest.raises(KeyboardInterrupt, match='the same call continues'):
      _run(_README)
    assert len(steps) == 2
    assert not _records('work/support')
    with pytest.raises(bam_jax.UserError, match='the run is not finished'):
      bam_jax.load('work/support').student()
    names = _run(_README)
  # Two of each of three runs; none was taken twice.
  assert len(steps) == 6
  assert signal.getsignal(signal.SIGINT) is handler
  return names


def _records(workdir: str) -> dict[Path, bytes]:
  return {path: path.read_bytes() for path in Path(workdir).glob('runs/*/DONE')}


def test_the_readme_reports_and_exports(readme):
  report = readme['result'].report()
  assert Path(report) == Path('work/support/report.html')
  assert 'srcdoc="&lt;!doctype html&gt;' in report._repr_html_()
  scores = readme['result'].scores
  record = json.loads(
    Path('work/support/runs/single_to_multi-s0/DONE').read_text()
  )
  row = scores.query("variant == 'single_to_multi' and metric == 'accuracy'")
  assert row['value'].tolist() == [
    record['scores']['urgency']['dev']['accuracy']
  ]
  assert row['seed'].tolist() == [0]
  labels = json.loads(Path('out/urgency/config.json').read_text())['id2label']
  assert [*labels.values()] == ['high', 'low', 'normal']
  assert {path.name for path in Path('out').iterdir()} == {
    'all', 'stars', 'urgency'
  }  # fmt: skip


@pytest.mark.parametrize('task', ['urgency', 'stars'])
def test_predictions_are_those_of_the_command_line(readme, task):
  """Oracle: what `--mode=predict --input` writes for the same rows."""
  rows = {'urgency': _TICKETS, 'stars': pd.DataFrame(_REVIEWS)}[task][:5]
  model = readme['model']
  found = model.predict(rows, task=task)
  assert found.index.equals(rows.index)
  declared = model._model.tasks[task].tables['train'].text
  lines = rows[[*declared]].to_dict('records')
  Path('rows.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  loaded = predict.load_model(readme['result']._plan, None)
  own_file.predict(loaded, task, 'rows.jsonl', 'out.jsonl')
  said = [
    json.loads(line) for line in Path('out.jsonl').read_text().split('\n')[:-1]
  ]
  wanted = pd.json_normalize(said)
  pd.testing.assert_frame_equal(
    found.reset_index(drop=True)[wanted.columns], wanted, rtol=1e-6
  )
  assert len(found.columns) == len(wanted.columns)
  # The same rows, given in other ways.
  texts = [tuple(each.values()) for each in lines]
  texts = texts if len(declared) > 1 else [text for (text,) in texts]
  columns = {name: [line[name] for line in lines] for name in declared}
  for inputs in (lines, columns, texts, Path('rows.jsonl')):
    again = model.predict(inputs, task=task)
    pd.testing.assert_frame_equal(again, found.reset_index(drop=True))


def test_the_same_call_trains_nothing_and_another_program_loads(readme):
  before = _records('work/support')
  assert len(before) == 3
  names = _run(_README)
  assert _records('work/support') == before
  texts = ['a car 3']
  wanted = readme['model'].predict(texts, task='stars')
  for model in (names['model'], bam_jax.load('work/support').student(seed=0)):
    pd.testing.assert_frame_equal(model.predict(texts, task='stars'), wanted)
  teacher = bam_jax.load('work/support').model('single-s0')
  assert {*teacher.tasks} == {'urgency', 'stars'}
  with pytest.raises(bam_jax.UserError, match='--group=single-s9: no such gr'):
    names['result'].model('single-s9')


def test_a_configuration_is_read_as_it_was_written(readme):
  config = readme['result']._plan.config
  kept = json.loads(Path('work/support/config.json').read_text())
  assert schema.to_dict(config_lib.from_dict(kept)) == schema.to_dict(config)
  assert config.name == 'support'
  assert config.optimizer.reduction == 'mean'  # Of configs/recommended.py.


def _task(**changes) -> api.Task:
  given = {'train': _TICKETS, 'dev': _TICKETS, 'text': ('subject', 'body')}
  return bam_jax.Task(**given | {'label': 'urgency'} | changes)


def test_rows_that_changed_are_refused_and_kept_as_files(readme):
  tasks = readme['tasks'] | {'urgency': _task(dev=None, dev_share=0.1)}
  before = _records('work/support')
  # What the README read from a file, as a frame.
  bam_jax.fit(tasks, init='', workdir='work/support')
  assert _records('work/support') == before
  changed = _TICKETS.assign(body=_TICKETS['body'].str.replace('29', '28'))
  tasks['urgency'] = _task(train=changed, dev=None, dev_share=0.1)
  with pytest.raises(
    bam_jax.UserError, match=r'divisions/urgency\.json: the development rows'
  ):
    bam_jax.fit(tasks, init='', workdir='work/support')


_MISTAKES = {
  'text-column': (
    {'text': ('subject', 'boddy')},
    r"mistake/data/urgency/train.jsonl:1: no field 'boddy'; the object has su",
  ),
  'label-column': (
    {'label': 'urgncy'},
    r"train.jsonl:1: no field 'urgncy'; the object has subject, body, urgency",
  ),
  'empty-frame': ({'train': _TICKETS[:0]}, r'\.urgency\.train: has no rows; g'),
  'empty-list': ({'dev': []}, r'config.custom_tasks.urgency.dev: has no rows'),
  'no-dev': ({'dev': None}, r'urgency.dev: empty; give a file, .* or a dev_sh'),
  'no-label-in-dev': (
    {'dev': _TICKETS.drop(columns='urgency')},
    r"dev.jsonl:1: no field 'urgency'; the object has subject, body",
  ),
  'label-of-dev-alone': (
    {'dev': _TICKETS.replace('low', 'lwo')},
    r"dev.jsonl:1: label 'lwo' is none of 'high', 'low', 'normal'",
  ),
  'missing-text': (
    {'train': _TICKETS.assign(body=None)},
    r"jsonl:1: field 'body' is missing \(null or NaN\); give a string",
  ),
  'columns-twice': (
    {'train': pd.concat([_TICKETS, _TICKETS], axis=1)},
    r'urgency.train: cannot be written as JSON lines \(DataFrame columns must',
  ),
  'file-and-rows': (
    {'dev': 'dev.csv', 'format': 'csv'},
    r'urgency: train is given as rows, but dev as a file of another format, c',
  ),
  'no-file': (
    {'train': 'a.tsv', 'dev': ['b.tsv', Path('c.tsv')]},
    r'a.tsv: No such file or directory; fix config.data.dir or config.custom',
  ),
  'kind': ({'kind': 'ranking'}, r"urgency.kind: 'ranking' is none of classif"),
}


def test_a_field_that_tasks_do_not_have_is_told():
  with pytest.raises(bam_jax.UserError) as caught:
    bam_jax.Task(train=_TICKETS, txt='body')
  assert str(caught.value) == (
    "bam_jax.Task: 'txt' is not a field; the nearest is 'text'"
  )
  with pytest.raises(bam_jax.UserError, match='field; here it is dev '):
    bam_jax.Task(train=_TICKETS, validation=_TICKETS)


@pytest.mark.parametrize('mistake', _MISTAKES)
def test_a_mistake_is_the_line_of_the_command_line(mistake, tmp_path):
  changes, message = _MISTAKES[mistake]
  tasks = {'urgency': _task(**changes)}
  with pytest.raises(bam_jax.UserError, match=message):
    bam_jax.fit(tasks, init='', workdir=tmp_path / 'mistake')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'tasks': {'../up': _task()}}, r"'../up' is not a task name; use letters"),
    (
      {'tasks': {'urgency': _TICKETS}},
      r'a DataFrame is not a task; give a bam_',
    ),
    ({'tasks': {}}, r'config.tasks is empty; give at least one value'),
    ({'workdir': 's3://b/c'}, r'workdir=s3://b/c: is in an object store'),
    ({'overrides': {'mult.epochs': 1.0}}, r'mult: no such key; the nearest is'),
    (
      {'overrides': {'multi.epochs': '1'}},
      r"multi.epochs: '1' is of type str; give",
    ),
    ({'overrides': {'seeds.x': 1}}, r'config.seeds.x: seeds is not a gr'),
    (
      {'overrides': {'config.seeds.x': 1}},
      r'config.seeds.x: seeds is not a group',
    ),
  ],
  ids=[
    'name',
    'no-task',
    'none',
    'store',
    'group',
    'type',
    'no-group',
    'prefix',
  ],
)
def test_a_wrong_argument_leaves_no_file(arguments, message, tmp_path):
  given = {'tasks': {'urgency': _task()}, 'init': '', 'workdir': tmp_path / 'a'}
  with pytest.raises(bam_jax.UserError, match=message):
    bam_jax.fit(**given | arguments)
  assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
  ('name', 'value', 'wanted'),
  [
    (
      'tasks',
      [_task()],
      'a list is given; give a dict of name -> bam_jax.Task',
    ),
    ('init', None, 'a NoneType is given; give a folder, a name on the hub or'),
    ('workdir', 3, 'a int is given; give a folder'),
    ('config', 'recommended', 'a str is given; give a ConfigDict'),
    ('overrides', [('seeds', (1,))], 'a list is given; give a dict of field'),
  ],
)
def test_an_argument_of_another_type(name, value, wanted, tmp_path):
  given = {'tasks': {'urgency': _task()}, 'init': '', 'workdir': tmp_path / 'a'}
  with pytest.raises(bam_jax.UserError, match=f'^{name}: {wanted}'):
    api.fit(**given | {name: value})
  assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
  ('inputs', 'task', 'message'),
  [
    (['a'], None, 'task is missing; give one of urgency, stars'),
    (['a'], 'star', 'task=star: no such task; give one of urgency, stars'),
    (['', None], 'stars', r"inputs\[0\]: 'text' is empty|'review' is empty"),
    (['a'], 'urgency', r'inputs\[0\]: 1 texts, but task urgency needs 2'),
    (_TICKETS[['body']], 'urgency', r"inputs\[0\]: no 'subject' beside 'body'"),
    (_TICKETS[:0], 'urgency', 'inputs: has no rows'),
    ({'review': 'a'}, 'stars', r'inputs: cannot be written .* scalar values'),
    ('a', 'stars', 'inputs: give a frame, a list of one or more, or a pathl'),
    ([], 'stars', 'inputs: give a frame, a list of one or more, or a pathl'),
  ],
  ids=[
    'task',
    'name',
    'empty',
    'pair',
    'column',
    'frame',
    'row',
    'text',
    'list',
  ],
)
def test_inputs_that_cannot_be_predicted(readme, inputs, task, message):
  with pytest.raises(bam_jax.UserError, match=message):
    readme['model'].predict(inputs, task=task)


def test_an_input_that_is_none_ends_no_other(readme):
  model = readme['model']
  found = model.predict(['a', '', None, 'b'], task='stars')
  assert 'empty' in found['error'][1]
  missing = 'inputs[2] is missing (null or NaN); give a string'
  assert found['error'][2] == missing
  assert found['score'].isna().tolist() == [False, True, True, False]
  good = model.predict(['a', 'b'], task='stars')
  assert 'error' not in good
  assert found['score'][[0, 3]].tolist() == pytest.approx(
    good['score'].tolist(), abs=1e-5
  )


def test_a_late_interrupt_is_not_lost(readme, monkeypatch):
  def run(plan):
    os.kill(os.getpid(), signal.SIGINT)

  monkeypatch.setattr(train, 'run', run)
  with pytest.raises(KeyboardInterrupt):
    _run(_README)


def test_rows_are_written_as_they_are():
  rows = [
    {'text': 'a\u2028"b" ü', 'label': 1, 'words': np.array(['x', 'y'])},
    {'text': None, 'score': np.float32(0.5), 'flag': True},
  ]
  written = api_tasks.to_json_lines(rows, 'rows').removesuffix('\n').split('\n')
  assert [*map(json.loads, written)] == [
    {'text': 'a\u2028"b" ü', 'label': 1, 'words': ['x', 'y']}
    | {'score': None, 'flag': None},
    {'text': None, 'label': None, 'words': None, 'score': 0.5, 'flag': True},
  ]
  # 1 is not written as 1.0, which would be another label.
  assert '"label":1,' in written[0]


def test_rows_without_labels_may_have_another_format():
  values = config_lib.default_config().to_dict()
  tasks = {
    'a': _task(unlabelled='more.csv'),
    'b': bam_jax.Task(train='b.tsv', dev='b.tsv', unlabelled=_REVIEWS),
  }
  written = api_tasks.add_tasks(values, tasks, Path('data'))
  path = Path('data/b/unlabelled.jsonl')
  assert values['data']['unlabelled'] == (
    'a=more.csv', f'b={path.absolute()}'
  )  # fmt: skip
  assert path in written
  formats = {
    name: own['format'] for name, own in values['custom_tasks'].items()
  }
  assert formats == {'a': 'jsonl', 'b': 'tsv'}


def test_a_model_is_exported_to_no_other_format(readme):
  with pytest.raises(bam_jax.UserError, match="format: 'onnx' is none of hf, "):
    readme['model'].export('other', format='onnx')


def test_nothing_is_there_to_load(tmp_path):
  with pytest.raises(
    bam_jax.UserError, match=r'b/config.json: is missing: nothing was'
  ):
    bam_jax.load(tmp_path / 'b')
  assert not [*tmp_path.iterdir()]
  # An exported model, a run's folder.
  for content in ({'model_type': 'bert'}, {'model': 'bert'}):
    (tmp_path / 'config.json').write_text(json.dumps(content))
    with pytest.raises(bam_jax.UserError, match='no settings of a plan; give'):
      bam_jax.load(tmp_path)


def test_the_package_is_imported_without_jax():
  program = (
    'import sys, bam_jax; bam_jax.__version__;'
    ' assert not {"jax", "numpy", "pandas"} & {*sys.modules}'
  )
  subprocess.run(
    [sys.executable, '-c', program], cwd=documents.ROOT, check=True
  )
  assert {'Task', 'fit', 'load', '__version__'} <= {*dir(bam_jax)}
  with pytest.raises(AttributeError, match="no attribute 'fitt'"):
    _ = bam_jax.fitt


@pytest.mark.fault
def test_the_guide_runs_with_every_kind(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  names = _run(_GUIDE)
  model = names['model']
  assert {*names['kinds']} | {*names['tasks']} == {*model.tasks}
  columns = {
    'urgency': ['label', 'truncated', 'probabilities.high'],
    'stars': ['score', 'truncated'],
    'moods': ['labels', 'truncated', 'probabilities.anger'],
    'names': ['tags', 'spans', 'truncated'],
    'parts': ['tags', 'truncated'],
    'answers': ['answer', 'start', 'end', 'truncated'],
  }
  inputs = {'urgency': names['tickets'], 'stars': names['reviews']}
  inputs |= {name: task.train for name, task in names['kinds'].items()}
  assert {*columns} == {*model.tasks}
  for task, wanted in columns.items():
    found = model.predict(inputs[task], task=task)
    assert [*found.columns][: len(wanted)] == wanted
    assert len(found) == len(inputs[task])
  answered = model.predict(inputs['answers'], task='answers')
  for row, given in zip(answered.itertuples(), names['questions']):
    if row.answer is not None:
      assert given['context'][row.start : row.end] == row.answer
  # Of two variants, a metric of classes and two of scores.
  assert len(names['average']) == 6
