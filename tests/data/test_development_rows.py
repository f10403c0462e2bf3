"""Development rows taken from training rows.

Oracles: properties that scikit-learn's splitters have, and the file itself.
"""

from collections import Counter
import dataclasses
import json
import logging
import re

import numpy as np
import pandas as pd
import pytest
from sklearn import model_selection

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import formats
from bam_jax.data import registry
from bam_jax.data import sources
from bam_jax.doctor import examine
from bam_jax.experiments import divisions
from bam_jax.tasks import task as task_lib

_SHARE = 0.15


def _frame(count: int = 300) -> pd.DataFrame:
  rng = np.random.default_rng(0)
  return pd.DataFrame(
    {
      'text': [f'row {i}' for i in range(count)],
      'other': 'x',
      'label': rng.choice(['a', 'b', 'c'], count, p=[0.6, 0.37, 0.03]),
      'score': rng.uniform(size=count).round(3),
      'author': rng.choice([f'who {i}' for i in range(40)], count),
    }
  )


def _config(folder, **values) -> config_lib.Config:
  config = config_lib.default_config()
  config.custom_tasks.own = config_lib.custom_task(**{
    'format': 'csv',
    'train': 'a.csv',
    'dev_share': _SHARE,
    'text': ('text',),
    'label': 'label',
    'labels': () if 'scale' in values else ('a', 'b', 'c'),
    **values,
  })  # fmt: skip
  config.tasks = ('own',)
  config.data.dir = str(folder)
  return config_lib.from_config_dict(config)


def _split(folder, frame, **values) -> tuple[list[int], list[int]]:
  """Indices of training and dev rows, checked to be all rows once."""
  frame.to_csv(folder / 'a.csv', index=False)
  config = _config(folder, **values)
  task = registry.resolve(config)['own']
  sides = []
  for split in ('train', 'dev'):
    rows = list(sources.read(task, split, config.data))
    numbers = [int(row.uid.removeprefix(f'own/{split}/')) for row in rows]
    assert [row.text_a for row in rows] == [*frame['text'][numbers]]
    sides.append(numbers)
  assert sorted(sides[0] + sides[1]) == list(range(len(frame)))
  return sides[0], sides[1]


def test_labels_are_as_frequent_as_sklearn_has_them(tmp_path):
  frame = _frame()
  _, dev = _split(tmp_path, frame)
  splitter = model_selection.StratifiedShuffleSplit(1, test_size=_SHARE)
  _, theirs = next(splitter.split(frame, frame['label']))
  assert len(dev) == len(theirs) == 45
  ours = Counter(frame['label'][dev])
  for label, count in Counter(frame['label'][theirs]).items():
    assert abs(ours[label] - count) <= 1
  # Of each class the rows are drawn at random, not the first ones.
  assert abs(np.mean(dev) - 150) < 4 * 300 / np.sqrt(12 * 45)


def test_the_seed_makes_the_division(tmp_path):
  frame = _frame()
  first = _split(tmp_path, frame)
  assert _split(tmp_path, frame) == first
  other = _split(tmp_path, frame, dev_seed=1)
  assert len({*other[1]} & {*first[1]}) < 20


def test_scores_have_one_range_on_both_sides(tmp_path):
  frame = _frame()
  values = {'kind': 'regression', 'scale': (0.0, 1.0), 'label': 'score'}
  train, dev = _split(tmp_path, frame, **values)
  quantiles = np.linspace(0, 1, 9)
  np.testing.assert_allclose(
    np.quantile(frame['score'][dev], quantiles),
    np.quantile(frame['score'][train], quantiles),
    atol=1 / 45,
  )


def test_a_group_is_on_one_side(tmp_path):
  frame = _frame()
  train, dev = _split(tmp_path, frame, dev_group='author')
  authors = [{*frame['author'][side]} for side in (train, dev)]
  assert not authors[0] & authors[1]
  largest = max(Counter(frame['author']).values())
  assert _SHARE * len(frame) - largest < len(dev) <= _SHARE * len(frame)


def test_a_group_above_the_share_is_in_training(tmp_path):
  frame = _frame(10).assign(author=[*'aaaaaaabcc'])
  assert _split(tmp_path, frame, dev_group='author')[1] == [7]
  frame = frame.assign(author=[*'aaaaaaaccc'])
  assert _split(tmp_path, frame, dev_group='author')[1] == [7, 8, 9]


def test_equal_texts_are_on_one_side(tmp_path):
  frame = _frame(60)
  again = frame.assign(text=frame['other'], other=frame['text'])
  both = pd.concat([frame, again, frame], ignore_index=True)
  train, dev = _split(tmp_path, both, text=('text', 'other'))
  assert not {i % 60 for i in train} & {i % 60 for i in dev}
  assert len(dev) == 3 * round(_SHARE * 60)


@pytest.mark.parametrize('share', [0.1, 0.2, 0.5])
def test_texts_of_many_rows_count_as_their_rows(tmp_path, share):
  rng = np.random.default_rng(0)
  texts = np.concatenate([np.arange(300), rng.zipf(1.6, 200) % 300])
  is_rare = rng.random(300) < 0.06
  frame = _frame(500).assign(
    text=[f'text {i}' for i in texts],
    label=np.where(is_rare[texts], 'b', 'a'),
  )
  assert frame['text'].value_counts().iloc[0] > 0.1 * len(frame)
  train, dev = _split(tmp_path, frame, dev_share=share)
  assert not {*frame['text'][train]} & {*frame['text'][dev]}
  assert abs(len(dev) - share * 500) <= 2
  rare = frame['label'] == 'b'
  assert abs(rare[dev].sum() - share * rare.sum()) <= 2
  # Most labels of a text are its label.
  frame = _frame(80).assign(text=[f'text {i // 4}' for i in range(80)])
  frame['label'] = [*'caaa'] * 10 + [*'acbb'] * 10
  _, dev = _split(tmp_path, frame, dev_share=0.5)
  assert sum(row < 40 for row in dev) == 20


def test_different_texts_are_divided_as_they_always_were(tmp_path):
  _, dev = _split(tmp_path, _frame(60), dev_seed=3)
  assert dev == [9, 14, 19, 24, 31, 35, 48, 50, 56]


def test_recorded_rows_stay_development_rows(tmp_path, caplog):
  frame = _frame(40)
  frame.loc[:29, 'text'] = 'a'
  train, _ = _split(tmp_path, frame, dev_share=0.5)
  path = tmp_path / 'divisions' / 'own.json'
  divisions.check(
    registry.resolve(_config(tmp_path, dev_share=0.5))['own'],
    _config(tmp_path).data,
    path,
  )
  tasks = registry.resolve(_config(tmp_path))
  assert divisions.recorded(tasks, {}) == {}
  record = json.loads(path.read_text())
  assert caplog.messages == [
    'own: 7 of 40 rows are development rows (17.5%), where dev_share=0.5 asks'
    ' for 50.0%: rows of equal texts, or of one group, stay on one side; give'
    ' another share, or a dev file'
  ]
  path.write_text(json.dumps(record | {'dev_share': _SHARE}))
  with pytest.raises(errors.UserError, match='chosen with other rows'):
    divisions.check(tasks['own'], _config(tmp_path).data, path)
  tasks = divisions.add(tasks, divisions.recorded(tasks, {'own': path}))
  read = divisions.check(tasks['own'], _config(tmp_path).data, path)
  for split, rows in (('train', train), ('dev', record['dev'])):
    assert [task_lib.row_index(row.uid) for row in read[split]] == rows
    data = _config(tmp_path).data
    assert read[split] == [*sources.read(tasks['own'], split, data)]
  frame.assign(other='new').to_csv(tmp_path / 'a.csv', index=False)
  divisions.check(tasks['own'], _config(tmp_path).data, path)
  frame.assign(text=frame['text'] + '!').to_csv(tmp_path / 'a.csv', index=False)
  with pytest.raises(errors.UserError, match='texts or labels of the training'):
    divisions.check(tasks['own'], _config(tmp_path).data, path)
  for content in ('{}', '{"dev": [[1]]}'):
    path.write_text(content)
    with pytest.raises(errors.UserError, match=r'json: has no list of row'):
      divisions.recorded(tasks, {'own': path})


@pytest.mark.parametrize('share', [0.01, 0.8, 0.9])
@pytest.mark.parametrize('texts', [2, 4])
def test_both_sides_have_rows(tmp_path, share, texts):
  frame = _frame(40).assign(text=[f'text {n % texts}' for n in range(40)])
  values = {'kind': 'regression', 'scale': (0.0, 1.0), 'label': 'score'}
  for seed in range(4):
    assert all(
      _split(tmp_path, frame, dev_share=share, dev_seed=seed, **values)
    )


def test_a_label_of_one_row_stays_in_training(tmp_path):
  frame = _frame(40).assign(label=['a'] * 20 + ['c'] + ['b'] * 19)
  for seed in range(9):
    train, _ = _split(tmp_path, frame, dev_share=0.5, dev_seed=seed)
    assert 20 in train


def test_questions_of_one_context_or_title_stay_together(tmp_path):
  data = [
    {
      'title': f't{i // 2}',
      'paragraphs': [
        {
          'context': f'c{i}',
          'qas': [
            {'question': f'q{i}{j}', 'answers': [
              {'text': 'c', 'answer_start': 0}
            ]}
            for j in range(3)
          ],
        }
      ],
    }
    for i in range(20)
  ]  # fmt: skip
  (tmp_path / 'a.json').write_text(json.dumps({'data': data}))
  for group, size in (('', 3), ('title', 6)):
    config = _config(
      tmp_path,
      kind='qa',
      format='squad',
      train='a.json',
      dev_share=0.4,
      text=(),
      labels=(),
      dev_group=group,
    )
    task = registry.resolve(config)['own']
    rows = [*sources.read(task, 'dev', config.data)]
    units = Counter(int(row.uid.rpartition('/')[2]) // size for row in rows)
    assert len(units) > 1
    assert {*units.values()} == {size}


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'dev': 'b.csv'}, '.dev_share: 0.15 is given besides dev; leave one'),
    ({'dev_share': 0.0}, '.dev: empty; give a file, below config.data.dir or'),
    (
      {'dev_share': 0.0, 'dev': 'b.csv', 'dev_group': 'author'},
      '.dev_group: needs dev_share; give that too, or leave it out',
    ),
    ({'dev_share': 0.95}, '.dev_share: 0.95 is out of range; give from 0 to 0'),
    ({'dev_group': 'x'}, "a.csv:1: no column 'x'; the first line has text, ot"),
    (
      {'dev_group': 'other'},
      'a.csv: has 1 groups, which config.custom_tasks.own.dev_share cannot'
      ' divide; give a dev file',
    ),
  ],
)
def test_mistakes(tmp_path, values, message):
  with pytest.raises(errors.UserError, match=re.escape(message)):
    _split(tmp_path, _frame(9), **values)


def test_the_doctor_sees_the_same_rows(tmp_path):
  frame = _frame()
  train, dev = _split(tmp_path, frame)
  for i in (train[3], dev[5]):
    frame.loc[i, 'text'] = ' '
  frame.loc[train[3], 'other'] = 'y'
  # The texts are part of the division: take the new one.
  train, dev = _split(tmp_path, frame)
  config = _config(tmp_path)
  table = task_lib.TaskTable((registry.resolve(config)['own'],))
  report = examine.examine(table, config.data, tokenizer=None)
  assert {each.split: each.rows for each in report.splits} == {
    'train': len(train), 'dev': len(dev)
  }  # fmt: skip
  blank = [*np.flatnonzero(frame['text'] == ' ')]
  side = {'train': train, 'dev': dev}
  for split, rows in side.items():
    expected = [f'a.csv:{i + 2}' for i in blank if i in rows]
    found = [
      f.places
      for f in report.findings
      if (f.split, f.check) == (split, 'empty text')
    ]
    assert [*found] == ([tuple(expected)] if expected else [])
  # A malformed row is reported once.
  with (tmp_path / 'a.csv').open('a') as file:
    file.write('one,two\n')
  report = examine.examine(table, config.data, tokenizer=None)
  malformed = [f for f in report.findings if f.check == 'malformed']
  assert [f.split for f in malformed] == ['train']


def test_the_doctor_tells_why_too_few_rows_can_be_divided(tmp_path):
  """One of two rows is left if the other has a fault."""
  path = tmp_path / 'a.csv'
  for second, expected in (('two,z', ['label']), ('one,b', ['unreadable'] * 2)):
    path.write_text(f'text,label\none,a\n{second}\n')
    config = _config(tmp_path, dev_share=0.5)
    table = task_lib.TaskTable((registry.resolve(config)['own'],))
    report = examine.examine(table, config.data, tokenizer=None)
    found = [f.check for f in report.findings if f.severity == 'error']
    assert found == expected


def test_a_changed_file_is_noticed(tmp_path):
  frame = _frame(40)
  _, dev = _split(tmp_path, frame)
  config, path = _config(tmp_path), tmp_path / 'divisions' / 'own.json'

  def check(**values) -> None:
    config = _config(tmp_path, **values)
    task = registry.resolve(config)['own']
    divisions.check(task, config.data, path)

  check()
  assert json.loads(path.read_text())['dev'] == dev
  check()
  start = (
    f'{path}: the development rows of own were chosen with other rows or'
    ' settings: '
  )
  with pytest.raises(errors.UserError, match=r'dev_seed was 0, is 1; restore'):
    check(dev_seed=1)
  pd.concat([frame, _frame(41)[40:]]).to_csv(tmp_path / 'a.csv')
  with pytest.raises(errors.UserError) as caught:
    check()
  assert str(caught.value) == (
    f'{start}train_rows was 34, is 35; restore what it was, or choose another'
    ' --workdir'
  )
  frame.assign(other='new', text=frame['text'] + '!').to_csv(tmp_path / 'a.csv')
  with pytest.raises(errors.UserError, match='texts or labels of the training'):
    check()
  # A task with a dev file of its own has no record.
  path.unlink()
  task = registry.resolve(config)['own']
  tables = {
    name: dataclasses.replace(table, division=None)
    for name, table in task.tables.items()
  }
  divisions.check(dataclasses.replace(task, tables=tables), config.data, path)
  assert not path.exists()


def test_the_file_is_read_once_for_its_record(tmp_path, monkeypatch, caplog):
  """And for both sides; rows that are skipped are logged once."""
  frame = _frame(40)
  frame.loc[3, 'label'] = '-'
  frame.to_csv(tmp_path / 'a.csv')
  config = _config(tmp_path, no_label=('-',))
  task = registry.resolve(config)['own']
  read, csv = [], formats.FORMATS['csv']

  def counted(*arguments):
    read.append(arguments[0])
    return csv.read(*arguments)

  monkeypatch.setitem(formats.FORMATS, 'csv', csv._replace(read=counted))
  with caplog.at_level(logging.INFO):
    divided = divisions.check(task, config.data, tmp_path / 'own.json')
  assert [*divided] == ['train', 'dev']
  assert sum(map(len, divided.values())) == 39
  assert len(read) == len(caplog.messages) == 1
  for split, examples in divided.items():
    assert examples == list(sources.read(task, split, config.data))
