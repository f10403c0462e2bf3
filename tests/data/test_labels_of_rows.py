"""Labels of tasks that give none. Oracle: the rows that were written."""

from collections import Counter
import dataclasses
import json
import logging
import re

import pandas as pd
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import labels
from bam_jax.data import registry
from bam_jax.data import sources
from bam_jax.doctor import command as doctor
from bam_jax.tasks import task as task_lib


def _config(folder, **values) -> config_lib.Config:
  config = config_lib.default_config()
  config.custom_tasks.own = config_lib.custom_task(**{
    'format': 'csv',
    'train': 'a.csv',
    'dev': 'a.csv',
    'text': ('text',),
    **values,
  })  # fmt: skip
  config.tasks = ('own', 'demo_nli')
  config.data.dir = str(folder)
  return config_lib.from_config_dict(config)


def _find(folder, workdir, learnt=(), **values) -> task_lib.Task:
  """Finds the labels of a task, and keeps them."""
  config = _config(folder, **values)
  tasks = registry.resolve(config)
  found = labels.find(tasks, config.data, workdir, learnt)
  tasks = labels.add(tasks, found, workdir)
  if workdir is not None:
    labels.keep(found, workdir)
  return tasks['own']


def _write(folder, values) -> None:
  frame = pd.DataFrame({'text': [f't{i}' for i in range(len(values))]})
  frame.assign(label=values).to_csv(folder / 'a.csv', index=False)


@pytest.mark.parametrize(
  ('values', 'expected'),
  [
    (['b', 'a', 'B', 'é', 'b', '-'], ('-', 'B', 'a', 'b', 'é')),
    (['10', '9', '-1', '9'], ('-1', '9', '10')),
    (['10', '9', 'x'], ('10', '9', 'x')),
    ([*'lkjihgfedcba', 'a'], tuple('abcdefghijkl')),
  ],
)
def test_labels_are_those_of_the_training_rows(
  tmp_path, caplog, values, expected
):
  _write(tmp_path, values)
  with caplog.at_level(logging.INFO):
    task = _find(tmp_path, tmp_path / 'work')
  assert task.labels == expected
  counts, path = Counter(values), tmp_path / 'work/labels/own.json'
  printed = ', '.join(f'{label!r} ({counts[label]})' for label in expected[:8])
  printed += ' and 4 more' if len(expected) == 12 else ''
  assert caplog.messages == [
    f'own: {len(expected)} labels of the training rows, in the order of the'
    f' outputs: {printed}',
    f'{path}: has all labels of own, with their counts',
  ]
  kept = json.loads(path.read_text())
  assert kept == {'labels': [*expected], 'rows': dict(counts)}
  data = config_lib.DataConfig(dir=str(tmp_path))
  read = [row.label for row in sources.read(task, 'train', data)]
  assert [expected[label] for label in read] == values
  assert task.definition()['labels'] == [*expected]


def test_the_file_decides_once_a_run_has_trained(tmp_path):
  _write(tmp_path, ['b', 'a'])
  work, learnt = tmp_path / 'work', ['own']
  _find(tmp_path, work)
  path = work / 'labels/own.json'
  path.write_text('{"labels": ["b", "a"]}')
  assert _find(tmp_path, work, learnt).labels == ('b', 'a')
  assert path.read_text() == '{"labels": ["b", "a"]}'
  _write(tmp_path, ['b', 'a', 'c'])
  task = _find(tmp_path, work, learnt)
  assert task.labels == ('b', 'a')
  data = config_lib.DataConfig(dir=str(tmp_path))
  with pytest.raises(errors.UserError) as caught:
    list(sources.read(task, 'train', data))
  assert str(caught.value) == (
    f"{tmp_path}/a.csv:4: label 'c' is none of 'b', 'a'; these were found"
    f' when {path} was written, and runs keep them; fix the row, or choose'
    ' another --workdir'
  )
  # Until then it decides nothing.
  assert _find(tmp_path, tmp_path / 'new').labels == ('a', 'b', 'c')
  _write(tmp_path, ['b', 'a', 'x'])
  assert _find(tmp_path, tmp_path / 'new').labels == ('a', 'b', 'x')
  path.write_text('{"labels": ["b", "a"]}')
  # No rows are needed any more.
  (tmp_path / 'a.csv').unlink()
  assert _find(tmp_path, work, learnt).labels == ('b', 'a')
  # Labels that are given come first.
  assert _find(tmp_path, work, learnt, labels=('x', 'y')).labels == ('x', 'y')
  for content in ('{}', '{"labels": [1]}', '{"labels": []}', '[]'):
    path.write_text(content)
    with pytest.raises(errors.UserError, match=r'own.json: '):
      _find(tmp_path, work, learnt)


def test_several_labels_and_tags(tmp_path):
  _write(tmp_path, ['joy, fear', '', 'anger,joy'])
  assert _find(tmp_path, None, kind='multilabel').labels == (
    'anger', 'fear', 'joy'
  )  # fmt: skip
  rows = [{'text': 'a', 'label': ['x, y', 'z']}, {'text': 'b', 'label': []}]
  (tmp_path / 'a.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  assert _find(
    tmp_path, None, kind='multilabel', format='jsonl', train='a.jsonl'
  ).labels == ('x, y', 'z')
  (tmp_path / 'a.conll').write_text('Bo B-PER\nis O\n\nBonn B-LOC\n')
  values = {'kind': 'tagging', 'format': 'conll', 'train': 'a.conll'}
  task = _find(tmp_path, None, **values, text=('0',), label='1')
  assert task.labels == ('B-LOC', 'B-PER', 'O')


@pytest.mark.parametrize(
  ('values', 'separator', 'mark', 'joined'),
  [
    (['pay', 'mail', 'pay; mail', 'x;pay'], ',', ';', 1),
    # No label stands alone.
    (['pay|mail', 'mail|post|x', 'post|pay'], ',', '|', 3),
    (['pay / mail', 'pay', 'mail'], ',', '/', 1),
    (['pay,mail', 'pay', 'mail'], ';', ',', 1),
    ([f'{i};{i + 1}' for i in range(1100)], ',', ';', 999),
    # Labels that hold such a character.
    (['TCP/IP', 'DNS', 'and/or'], ',', '', 0),
    (['en/fr', 'fr/en', 'en/de', 'de/en'], ',', '', 0),
    (['toys|cars', 'toys|dolls', 'books|new'], ',', '', 0),
    (['in/out', 'in', 'out', *'abcdef'], ',', '', 0),
  ],
)
def test_another_separator_is_named(tmp_path, values, separator, mark, joined):
  _write(tmp_path, values)
  options = {'kind': 'multilabel', 'separator': separator}
  if not mark:
    found = _find(tmp_path, None, **options)
    assert found.labels == tuple(sorted(values))
    return
  with pytest.raises(errors.UserError) as caught:
    _find(tmp_path, None, **options)
  assert re.fullmatch(
    rf'a.csv: {joined:,} of [0-9,]+ labels are several labels each, joined by'
    rf" '\{mark}': .*; set config.custom_tasks.own.separator='\{mark}', or give"
    r' labels if each is one',
    str(caught.value),
  )
  assert _find(tmp_path, None, **options, labels=('a',)).labels == ('a',)
  if joined < 999:
    pieces = {p.strip() for value in values for p in value.split(mark)}
    found = _find(tmp_path, None, kind='multilabel', separator=mark)
    assert found.labels == tuple(sorted(pieces))
  # Lists are no cells.
  rows = [{'text': 't', 'label': [value]} for value in values[:9]]
  (tmp_path / 'a.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  options |= {'format': 'jsonl', 'train': 'a.jsonl'}
  assert _find(tmp_path, None, **options).labels == tuple(sorted(values[:9]))


@pytest.mark.parametrize('value', ['', '  ', 'nan', 'NULL', '<NA>'])
def test_a_missing_label_is_no_class(tmp_path, value):
  _write(tmp_path, ['a', value, 'b', value])
  for kind in ('classification', 'multilabel'):
    if kind == 'multilabel' and not value.strip():
      continue  # It is a row with none of the labels.
    with pytest.raises(errors.UserError) as caught:
      _find(tmp_path, None, kind=kind)
    none = ''
    if kind == 'multilabel':
      none = '; write an empty list or text if it has none of the labels'
    assert str(caught.value) == (
      f'{tmp_path}/a.csv:3: {value!r} looks like a missing label; fix the row,'
      ' or, if it is a label, list all labels in'
      f' config.custom_tasks.own.labels{none}; or skip rows without a label by'
      f' config.custom_tasks.own.no_label=({value!r},)'
    )
    task = _find(tmp_path, None, kind=kind, no_label=(value,))
    assert task.labels == ('a', 'b')
    data = config_lib.DataConfig(dir=str(tmp_path))
    uids = [row.uid for row in sources.read(task, 'train', data)]
    assert uids == ['own/train/0', 'own/train/2']
  assert _find(tmp_path, None, labels=('a', 'b', value)).labels[2] == value


@pytest.mark.parametrize('bad', [['a'], [], {}, {'a': 'b'}])
@pytest.mark.parametrize('kind', ['classification', 'regression'])
def test_a_list_or_an_object_is_no_single_label(tmp_path, kind, bad):
  rows = [{'text': 't', 'label': each} for each in (0, 1, bad)]
  (tmp_path / 'a.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  values = {'kind': kind, 'format': 'jsonl', 'train': 'a.jsonl'}
  task = _find(tmp_path, None, **values)
  assert task.labels == (('0', '1') if kind == 'classification' else ())
  with pytest.raises(errors.UserError, match=r"a.jsonl:3: field 'label' is a"):
    list(sources.read(task, 'train', config_lib.DataConfig(dir=str(tmp_path))))


@pytest.mark.parametrize('values', [['a', 'b'], ['a', 'b', 'c']])
def test_a_threshold_needs_two_labels_as_the_rows_have_them(tmp_path, values):
  _write(tmp_path, values)
  config = _config(tmp_path, metrics=('accuracy',))
  decisions = config_lib.DecisionConfig(thresholds=('own=f1',))
  config = dataclasses.replace(config, decisions=decisions)
  tasks = registry.resolve(config)
  tasks = labels.add(tasks, labels.find(tasks, config.data))
  mistakes = [*registry.threshold_mistakes(config, tasks)]
  assert len(mistakes) == (len(values) != 2)
  if mistakes:
    with pytest.raises(errors.UserError, match='only tasks with two labels'):
      doctor.run(config, tmp_path / 'work')


@pytest.mark.parametrize('label', ['label', 'other'])
def test_a_file_in_another_encoding_without_a_usable_row(tmp_path, label):
  row = {'text': 'café', 'label': ['a']}
  text = json.dumps(row, ensure_ascii=False)
  (tmp_path / 'a.jsonl').write_bytes(text.encode('latin-1'))
  values = {'format': 'jsonl', 'train': 'a.jsonl', 'label': label}
  with pytest.raises(errors.UserError, match=r'a\.jsonl:1: not UTF-8'):
    _find(tmp_path, None, **values)


@pytest.mark.parametrize('bad', [None, ['a', None]])
def test_null_is_no_label_of_several(tmp_path, bad):
  rows = [{'text': 't', 'label': each} for each in (['a'], bad, [], ['b'])]
  (tmp_path / 'a.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  values = {'kind': 'multilabel', 'format': 'jsonl', 'train': 'a.jsonl'}
  with pytest.raises(errors.UserError, match=r"a.jsonl:2: 'null' looks like"):
    _find(tmp_path, None, **values)
  task = _find(tmp_path, None, **values, no_label=('null',))
  data = config_lib.DataConfig(dir=str(tmp_path))
  read = list(sources.read(task, 'train', data))
  assert [row.label for row in read] == [(0,), (), (1,)]


@pytest.mark.parametrize(
  ('values', 'options', 'message'),
  [
    (
      ['a', 'a'],
      {},
      "config.custom_tasks.own.labels: ('a',) must be two or more different"
      ' labels; the labels are those of the training rows: change the rows, or'
      ' give labels',
    ),
    (
      ['a', 'b', 'c'],
      {'metrics': ('f1',)},
      "config.custom_tasks.own.metrics: 'f1' needs two labels, not 3",
    ),
    (
      [f'id {i}' for i in range(1001)],
      {},
      "a.csv: the column 'label' has more than 1,000 different labels; name",
    ),
    ([], {}, 'a.csv: has no usable row; fix config.data.dir or config.custom'),
    (
      ['a', "['a', 'b']"],
      {'kind': 'multilabel'},
      "a.csv:3: \"['a', 'b']\" is a list in a cell; write its labels with ','",
    ),
    (
      ['a', '["a"]'],
      {'kind': 'multilabel'},
      "a.csv:3: '[\"a\"]' is a list in a cell; write its labels with ','",
    ),
    (['a'], {'train': 'x.csv'}, 'x.csv: No such file or directory; fix config'),
    (['a'], {'label': 'x'}, "a.csv:1: no column 'x'; the first line has text,"),
    (['a', '-'], {'no_label': ('-',)}, "labels: ('a',) must be two or more"),
  ],
)
def test_mistakes(tmp_path, values, options, message):
  _write(tmp_path, values)
  with pytest.raises(errors.UserError, match=re.escape(message)):
    _find(tmp_path, tmp_path / 'work', **options)
  assert not (tmp_path / 'work').exists()


def test_the_doctor_writes_no_labels(tmp_path, capsys):
  _write(tmp_path, ['up', 'down'] * 9)
  work = tmp_path / 'work'
  doctor.run(_config(tmp_path), work)
  report = json.loads((work / 'doctor.json').read_text())
  assert report['splits'][0]['shares'] == {'down': 0.5, 'up': 0.5}
  assert not (work / 'labels').exists()
  # It reads those that runs keep.
  run = work / 'runs/single-s0-own'
  run.mkdir(parents=True)
  (run / 'config.json').write_text('{"run.tasks": ["own"]}')
  (run / 'DONE').touch()
  (work / 'labels').mkdir()
  (work / 'labels/own.json').write_text('{"labels": ["up", "down", "gone"]}')
  doctor.run(_config(tmp_path), work)
  report = json.loads((work / 'doctor.json').read_text())
  assert any('gone' in each['what'] for each in report['findings'])
  # Labels that look alike are named, in quotes.
  numbers = ['1', '1.0', '10', '1.05']
  _write(tmp_path, ['up', 'Up', 'up ', 'down', 'e\u0301', '\u00e9', *numbers])
  doctor.run(_config(tmp_path), tmp_path / 'new')
  report = json.loads((tmp_path / 'new/doctor.json').read_text())
  twins = [e for e in report['findings'] if e['check'] == 'twin labels']
  assert [(e['split'], e['what'].partition(': ')[2]) for e in twins] == [
    ('train', "'1', '1.0'"),
    ('train', "'Up', 'up', 'up '"), ('train', "'e\u0301', '\u00e9'")
  ]  # fmt: skip
  # So are those that seem to be several.
  _write(tmp_path, ['up', 'down', 'up;down'])
  doctor.run(_config(tmp_path), tmp_path / 'new')
  report = json.loads((tmp_path / 'new/doctor.json').read_text())
  joined = [e for e in report['findings'] if e['check'] == 'joined labels']
  assert [e['what'] for e in joined] == [
    "labels that may be several, joined by ';': 'up;down'"
  ]
  # A missing label is an error among the others.
  _write(tmp_path, ['up', 'down', 'nan'] * 9)
  assert doctor.run(_config(tmp_path), tmp_path / 'new') == 3
  report = json.loads((tmp_path / 'new/doctor.json').read_text())
  errors_ = [e for e in report['findings'] if e['severity'] == 'error']
  assert [(e['split'], e['check'], e['count']) for e in errors_] == [
    ('train', 'label', 9), ('dev', 'label', 9)
  ]  # fmt: skip
  capsys.readouterr()
