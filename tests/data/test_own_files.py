"""Files as people have them: CSV, Parquet, compressed, nested, several.

Oracles: pandas and the csv module, which wrote the files.
"""

import bz2
import csv
import dataclasses
import gzip
import io
import json
import logging
import lzma
from pathlib import Path
import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import registry
from bam_jax.data import sources
from bam_jax.data import unlabelled
from bam_jax.doctor import examine
from bam_jax.tasks import task as task_lib

# Quotes, separators and line breaks inside of texts; one that is a number.
_ROWS = pd.DataFrame({
  'body': ['so, "it"\ngoes', 'a;b\tc\r\nd', ' caf\u00e9\u2028', '7', '""', 'x'],
  'id': [3, 1, 2, 4, 5, 6],
  'mood': ['up', 'down', 'up', 'up', 'down', 'up'],
})  # fmt: skip
_EXPECTED = [*zip(_ROWS['body'], _ROWS['mood'])]


def _config(folder: Path, **values: object) -> config_lib.Config:
  config = config_lib.default_config()
  config.custom_tasks.own = config_lib.custom_task(**{
    'labels': ('down', 'up'),
    'text': ('body',),
    'label': 'mood',
    'dev': 'dev.csv',
    'format': 'csv',
    **values,
  })  # fmt: skip
  config.tasks = ('own',)
  config.data.dir = str(folder)
  return config_lib.from_config_dict(config)


def _examples(config: config_lib.Config, split: str = 'train'):
  task = registry.resolve(config)['own']
  return list(sources.read(task, split, config.data))


def _read(folder: Path, **values: object) -> list[tuple[str, str]]:
  config = _config(folder, **values)
  labels = registry.resolve(config)['own'].labels
  return [(row.text_a, labels[row.label]) for row in _examples(config)]


def _message(folder: Path, **values: object) -> str:
  with pytest.raises(errors.UserError) as caught:
    _read(folder, **values)
  assert '\n' not in str(caught.value)
  return str(caught.value).replace(str(folder), 'data')


@pytest.mark.parametrize('quoting', [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize(
  ('file', 'mark'),
  [('a.csv', ','), ('a.csv', ';'), ('a.csv', '|'), ('a.tsv', '\t')],
)
def test_csv(tmp_path, file, mark, quoting):
  _ROWS.to_csv(
    tmp_path / file,
    sep=mark,
    index=False,
    quoting=quoting,
    encoding='utf-8-sig',
    lineterminator='\r\n',
  )
  assert _read(tmp_path, train=file) == _EXPECTED


@pytest.mark.parametrize('quoting', [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_a_missing_column_is_named_whatever_separates_the_others(
  tmp_path, quoting
):
  _ROWS.to_csv(tmp_path / 'a.csv', sep=';', index=False, quoting=quoting)
  assert _message(tmp_path, train='a.csv', label='Mood') == (
    "data/a.csv:1: no column 'Mood'; the first line has"
    f" {', '.join(_ROWS.columns)}; name one of these (the nearest is 'mood'),"
    ' or set header=False if the first line is data'
  )


@pytest.mark.parametrize('file', ['a.csv', 'a.tsv'])
def test_a_cell_may_be_as_long_as_a_line(tmp_path, file):
  text = 'word ' * 100_000  # The csv module's own limit is 131,072 characters.
  rows = pd.DataFrame({'body': [text, 'b'], 'mood': ['up', 'down']})
  rows.to_csv(tmp_path / file, sep=',\t'[file == 'a.tsv'], index=False)
  assert _read(tmp_path, train=file) == [(text, 'up'), ('b', 'down')]


@pytest.mark.parametrize('end', ['\n', '\r\n'])
@pytest.mark.parametrize('mark', [';', '|', '\t'])
def test_the_line_that_tells_excel_the_separator(tmp_path, mark, end):
  path = tmp_path / 'a.csv'
  _ROWS.to_csv(path, sep=mark, index=False, lineterminator=end)
  path.write_text(f'sep={mark}{end}{path.read_bytes().decode()}', newline='')
  assert _read(tmp_path, train='a.csv') == _EXPECTED
  path.write_text(f'sep={mark}{end}body{mark}mood{end}a{mark}up{end}b{end}')
  assert _message(tmp_path, train='a.csv').startswith('data/a.csv:4: 1 columns')


def test_csv_without_a_header(tmp_path):
  _ROWS.to_csv(tmp_path / 'a.csv', index=False, header=False)
  assert (
    _read(tmp_path, train='a.csv', header=False, text=('0',), label='-1')
    == _EXPECTED
  )


def test_rows_of_csv_have_the_line_at_which_they_begin(tmp_path):
  path = tmp_path / 'a.csv'
  path.write_text('body,mood\n\n"a\n\nb",up\nc,\n')
  assert _message(tmp_path, train='a.csv').startswith('data/a.csv:6: label')


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('body,mood\na,up\n"b,up\nc,up\n', ':3: not CSV (unexpected end of data);'),
    ('body,mood\n"a"b,up\n', ":2: not CSV (',' expected after '\"');"),
    ('body,mood\na,b,up\n', ':2: 3 columns where the first line has 2;'),
    ('text,mood\na,up\n', ":1: no column 'body'; the first line has text, mo"),
    (
      ' Body,mood\na,up\n',
      ":1: no column 'body'; the first line has Body, mood; name one of these"
      " (the nearest is ' Body'), or",
    ),
    ('body,mood,mood\na,up,up\n', ":1: two columns are named 'mood'; rename"),
    ('', ': has no usable row; fix config.data.dir or'),
  ],
)
def test_mistakes_of_csv(tmp_path, content, message):
  (tmp_path / 'a.csv').write_text(content)
  assert _message(tmp_path, train='a.csv').startswith(f'data/a.csv{message}')


def _zstd(content: bytes) -> bytes:
  return pa.compress(content, 'zstd', asbytes=True)


_COMPRESS = {
  'gz': gzip.compress, 'bz2': bz2.compress, 'xz': lzma.compress, 'zst': _zstd
}  # fmt: skip


@pytest.mark.parametrize('suffix', _COMPRESS)
@pytest.mark.parametrize('format', ['csv', 'jsonl', 'tsv', 'conll', 'squad'])
def test_compressed(tmp_path, format, suffix):
  """A compressed file has the rows and digest of the file itself."""
  answers = [{'text': 'b', 'answer_start': 2}]
  qas = [{'question': 'q', 'answers': answers}]
  content = {
    'csv': _ROWS.to_csv(index=False),
    'jsonl': _ROWS.to_json(orient='records', lines=True),
    'tsv': 'body\tmood\na\tup\n',
    'conll': 'a O\nb B-X\n',
    'squad': json.dumps(
      {'data': [{'paragraphs': [{'context': 'a b', 'qas': qas}]}]}
    ),
  }[format].encode()
  values = {
    'conll': {
      'kind': 'tagging', 'labels': ('O', 'B-X'), 'text': ('0',), 'label': '1'
    },
    'squad': {'kind': 'qa', 'labels': (), 'text': (), 'label': 'answers'},
  }.get(format, {})  # fmt: skip
  digests = []
  # Two members one after the other are one file.
  half = len(content) // 2
  compress = _COMPRESS[suffix]
  for name, data in {
    f'a.{format}': content,
    f'a.{format}.{suffix}': compress(content),
    f'b.{format}.{suffix}': compress(content[:half]) + compress(content[half:]),
  }.items():
    (tmp_path / name).write_bytes(data)
    config = _config(tmp_path, train=name, format=format, **values)
    digests.append(sources.rows_digest(_examples(config)))
  assert len({*digests}) == 1


@pytest.mark.parametrize('suffix', _COMPRESS)
def test_a_damaged_compressed_file(tmp_path, suffix):
  content = bytearray(_COMPRESS[suffix](_ROWS.to_csv(index=False).encode()))
  (tmp_path / 'cut').write_bytes(content[:-9])
  content[len(content) // 2] ^= 0xFF
  (tmp_path / 'flip').write_bytes(content)
  # Zstandard's checksum is optional, and pyarrow writes none.
  for name in ('cut', 'flip')[: 1 + (suffix != 'zst')]:
    message = _message(tmp_path, train=name)
    assert message.startswith(f'data/{name}: is compressed by ')
    assert message.endswith('; get the file again')


def test_a_compressed_file_to_be_predicted(tmp_path):
  task = registry.resolve(_config(tmp_path, train='a.csv'))['own']
  path = tmp_path / 'a.jsonl.gz'
  path.write_bytes(gzip.compress(b'{"body": "a"}\n{"text": "b"}\n'))
  with unlabelled.open_rows(str(path), task) as rows:
    assert (rows.format, [*rows.texts]) == ('jsonl', [('a',), ('b',)])


def test_parquet(tmp_path):
  _ROWS.assign(mood=_ROWS['mood'].astype('category')).to_parquet(
    tmp_path / 'a.parquet'
  )
  rows = {'train': 'a.parquet', 'format': 'parquet'}
  assert _read(tmp_path, **rows) == _EXPECTED
  assert _message(tmp_path, **rows, labels=('up', 'off')) == (
    "data/a.parquet, row 1: label 'down' is none of 'up', 'off'; fix the"
    " row or the labels of task 'own'"
  )


def test_parquet_whose_schema_names_a_dropped_column(tmp_path):
  """`datasets` writes its own metadata, which keep columns that are dropped."""
  feature = {'names': ['down', 'up'], '_type': 'ClassLabel'}
  features = {'mood': feature, 'gone': feature}
  table = pa.table({'body': ['a', 'b'], 'mood': [1, 0], 'gone': [0, 0]})
  table = table.replace_schema_metadata(
    {'huggingface': json.dumps({'info': {'features': features}})}
  )
  pq.write_table(table.drop_columns(['gone']), tmp_path / 'a.parquet')
  rows = {'train': 'a.parquet', 'format': 'parquet'}
  assert _read(tmp_path, **rows) == [('a', 'up'), ('b', 'down')]


def test_mistakes_of_parquet(tmp_path, monkeypatch):
  rows = {'train': 'a', 'format': 'parquet'}
  times = pd.DataFrame({'body': ['a'], 'mood': [pd.Timestamp(0)]})
  times.to_parquet(tmp_path / 'a')
  assert _message(tmp_path, **rows) == (
    "data/a, row 0: field 'mood' is a Timestamp; write it as a string or a"
    ' number'
  )
  assert _message(tmp_path, **rows, text=('mood',)) == (
    "data/a, row 0: field 'mood' is not a string; give a string"
  )
  assert _message(tmp_path, **rows, text=('x',)) == (
    "data/a, row 0: no field 'x'; the object has body, mood"
  )
  (tmp_path / 'a').write_text('body,mood\n')
  assert _message(tmp_path, **rows).startswith(
    'data/a: is not a Parquet file, or is damaged ('
  )
  monkeypatch.setattr(errors, 'absent', list)
  assert _message(tmp_path, **rows) == (
    "data/a: needs the package pyarrow; pip install 'bam-jax[arrow]'"
  )


def test_names_with_dots_are_paths(tmp_path):
  rows = [
    {
      'data': {'body': text, 'a.b': 'not read'},
      'annotations': [{'result': {'mood': mood}}],
    }
    for text, mood in _EXPECTED
  ]
  path = tmp_path / 'a.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  names = {'train': 'a.jsonl', 'format': 'jsonl', 'text': ('data.body',)}
  label = 'annotations.0.result.mood'
  assert _read(tmp_path, **names, label=label) == _EXPECTED
  pd.DataFrame(rows).to_parquet(tmp_path / 'a.parquet')
  nested = names | {'train': 'a.parquet', 'format': 'parquet'}
  assert _read(tmp_path, **nested, label=label) == _EXPECTED
  for label, what in {
    'annotations.1.mood': "'annotations' is a list of length 1",
    'annotations.0.x': "'annotations.0' has result",
    'data.body.x': "'data.body' is a str",
    'x.y': 'the object has data, annotations',
  }.items():
    assert _message(tmp_path, **names, label=label) == (
      f'data/a.jsonl:1: no field {label!r}; {what}'
    )
  # A field whose own name has a dot comes first.
  path.write_text('{"data.body": "a", "data": {"body": "b"}, "mood": "up"}\n')
  assert _read(tmp_path, **names) == [('a', 'up')]


@pytest.mark.parametrize(
  'train', ['part-*.csv', ('part-1.csv', 'part-2.csv.gz')]
)
def test_several_files(tmp_path, train):
  _ROWS[:2].to_csv(tmp_path / 'part-1.csv', index=False)
  content = _ROWS[2:].to_csv(index=False).encode()
  (tmp_path / 'part-2.csv.gz').write_bytes(gzip.compress(content))
  train = f'{train}*' if isinstance(train, str) else train
  assert _read(tmp_path, train=train) == _EXPECTED
  uids = [row.uid for row in _examples(_config(tmp_path, train=train))]
  assert uids == [f'own/train/{i}' for i in range(len(_ROWS))]


def test_mistakes_of_several_files(tmp_path):
  assert _message(tmp_path, train='x-*.csv') == (
    'data/x-*.csv: No such file or directory; fix config.data.dir or'
    ' config.custom_tasks.own'
  )
  _ROWS.to_csv(tmp_path / 'a.csv', index=False)
  (tmp_path / 'b.csv').write_text('body,mood\n')
  files = ('a.csv', 'b.csv')
  assert _message(tmp_path, train=files).startswith('data/b.csv: has no usable')
  (tmp_path / 'b.csv').write_text('body,mood\n\nx,oops\n')
  assert _message(tmp_path, train=files).startswith("data/b.csv:3: label 'oops")
  assert _message(tmp_path, train=()) == (
    'config.custom_tasks.own.train: empty; give a file, below config.data.dir'
    ' or absolute'
  )


def test_the_doctor_sees_the_same_rows(tmp_path):
  """Rows of several files, with findings where they stand."""
  _ROWS.to_csv(tmp_path / 'a.csv', index=False)
  more = pd.DataFrame({'body': ['new\nlines', 'x', '']})
  more.assign(mood='up').to_csv(tmp_path / 'b.csv', index=False)
  more.assign(mood='up').to_parquet(tmp_path / 'dev.parquet')
  config = _config(tmp_path, train=('a.csv', 'b.csv'), dev='a.csv')
  task = registry.resolve(config)['own']
  report = examine.examine(
    task_lib.TaskTable((task,)), config.data, tokenizer=None
  )
  assert {each.split: each.rows for each in report.splits} == {
    split: len(_examples(config, split)) for split in ('train', 'dev')
  }
  places = {each.check: each.places for each in report.findings}
  # In a.csv two texts before `x` have a line break.
  assert places['duplicates'] == ('a.csv:9 = b.csv:4',)
  assert places['empty text'] == ('b.csv:5',)
  table = dataclasses.replace(task.tables['dev'], format='parquet')
  for name, check in (
    ('dev.parquet', {'empty text': ('own/dev/2',)}),
    ('none-*.parquet', {'missing': ('none-*.parquet',)}),
  ):
    dev = dataclasses.replace(table, file=name)
    task = dataclasses.replace(task, tables={**task.tables, 'dev': dev})
    report = examine.examine(
      task_lib.TaskTable((task,)), config.data, tokenizer=None
    )
    found = {f.check: f.places for f in report.findings if f.split == 'dev'}
    assert found.items() >= check.items()


def test_unlabelled_rows_of_csv_and_parquet(tmp_path):
  config = _config(tmp_path, train='a.csv')
  for file in ('more.csv', 'more.csv.gz', 'more.parquet'):
    write = _ROWS.to_parquet if 'parquet' in file else _ROWS.to_csv
    write(tmp_path / file)
    data = dataclasses.replace(config.data, unlabelled=(f'own={file}',))
    new = dataclasses.replace(config, data=data)
    rows = _examples(new, task_lib.UNLABELLED)
    assert [row.text_a for row in rows] == [*_ROWS['body']]
  for file in ('more.txt', 'more.csv.zip'):
    with pytest.raises(errors.UserError, match='is not TASK=FILE'):
      config_lib.unlabelled_files(
        dataclasses.replace(
          config, data=config_lib.DataConfig(unlabelled=(f'own={file}',))
        )
      )


def test_csv_is_streamed(tmp_path):
  text = io.StringIO()
  csv.writer(text).writerows([('body', 'mood'), ('x', 'up'), ('x', 'oops')])
  (tmp_path / 'a.csv').write_text(text.getvalue())
  config = _config(tmp_path, train='a.csv')
  rows = sources.read(registry.resolve(config)['own'], 'train', config.data)
  assert next(rows).text_a == 'x'


@pytest.mark.parametrize('format', ['csv', 'jsonl', 'parquet'])
def test_rows_without_a_label_are_skipped(tmp_path, caplog, format):
  frame = pd.DataFrame(
    {
      'body': [*'abcde'],
      'mood': ['up', None, '-', 'down', ''],
    }
  )
  path = tmp_path / f'a.{format}'
  {
    'csv': frame.to_csv,
    'jsonl': lambda path: frame.to_json(path, orient='records', lines=True),
    'parquet': frame.to_parquet,
  }[format](path)
  rows = {'train': path.name, 'dev': path.name, 'format': format}
  missing = '' if format == 'csv' else 'null'
  message = _message(tmp_path, **rows)
  assert message.endswith(
    "fix the row or the labels of task 'own'; or skip rows without a label by"
    f' config.custom_tasks.own.no_label=({missing!r},)'
  )
  config = _config(tmp_path, **rows, no_label=('-', missing, ''))
  with caplog.at_level(logging.INFO):
    assert [row.uid for row in _examples(config)] == [
      'own/train/0',
      'own/train/3',
    ]
  assert caplog.messages == [f'{path}: skipped 3 rows without a label, of 5']
  tasks = registry.resolve(config)
  report = examine.examine(tasks, config.data, tokenizer=None)
  assert [each.rows for each in report.splits] == [2, 2]
  found = [f for f in report.findings if f.check == 'no label']
  assert [(f.severity, f.split, f.count) for f in found] == [
    ('note', 'train', 3),
    ('note', 'dev', 3),
  ]
  # None is left.
  every = {'no_label': ('up', 'down', '-', '', 'null'), 'labels': ('x', 'y')}
  config = _config(tmp_path, **rows, **every)
  with pytest.raises(errors.UserError, match='no row has a label: each row'):
    _examples(config)
  report = examine.examine(registry.resolve(config), config.data, None)
  assert [(f.severity, f.split) for f in report.findings[:2]] == [
    ('error', 'train'),
    ('error', 'dev'),
  ]


def test_a_missing_field_is_no_label(tmp_path):
  (tmp_path / 'a.jsonl').write_text(
    '{"body": "a"}\n{"body": "b", "mood": "up"}\n'
  )
  rows = {'train': 'a.jsonl', 'format': 'jsonl'}
  assert _read(tmp_path, **rows, no_label=('null',)) == [('b', 'up')]
  assert ": no field 'mood'; " in _message(tmp_path, **rows, no_label=('-',))


@pytest.mark.parametrize('format', ['jsonl', 'parquet'])
@pytest.mark.parametrize('divided', [False, True])
@pytest.mark.parametrize('labels', [(), ('up', 'down')])
@pytest.mark.parametrize('field', ['moods', 'bodi'])
def test_a_field_that_no_row_has_is_named(
  tmp_path, format, divided, labels, field
):
  name = f'a.{format}'
  frame = pd.DataFrame({'body': ['a', 'b'], 'mood': ['up', 'down']})
  write = {
    'jsonl': lambda path: frame.to_json(path, orient='records', lines=True),
    'parquet': frame.to_parquet,
  }
  write[format](tmp_path / name)
  rows = {'train': name, 'dev': name, 'format': format, 'no_label': ('null',)}
  rows |= {'labels': labels}
  rows |= {'text': ('bodi',)} if field == 'bodi' else {'label': field}
  if divided:
    rows |= {'dev': '', 'dev_share': 0.5}
  near = {'moods': 'mood', 'bodi': 'body'}[field]
  what = (
    f"no field {field!r}; the object has body, mood; the nearest is '{near}'"
  )
  config = _config(tmp_path, **rows)
  task = registry.resolve(config)['own']
  with pytest.raises(errors.UserError, match=what):
    list(sources.read(task, 'train', config.data))
  with pytest.raises(errors.UserError, match=what):
    list(sources.read_labels(task, 'train', config.data))
  report = examine.examine(registry.resolve(config), config.data, None)
  found = [f for f in report.findings if f.severity == 'error']
  assert [f.split for f in found] == ['train'] if divided else ['train', 'dev']
  assert all(what in f'{f.what}; {f.remedy}' for f in found)


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'no_label': ('up',)}, ".no_label: 'up' is one of the labels too; remove"),
    (
      {
        'kind': 'tagging', 'format': 'conll', 'labels': ('O', 'B-X'),
        'text': ('0',), 'label': '1', 'no_label': ('-',),
      },
      '.no_label: tagging rows have no single label; leave it out',
    ),
  ],
)  # fmt: skip
def test_mistakes_of_no_label(tmp_path, values, message):
  told = _message(tmp_path, train='a.csv', **values)
  assert told.startswith(f'config.custom_tasks.own{message}')


def test_scores_may_be_missing(tmp_path):
  (tmp_path / 'a.csv').write_text('body,mood\na,0.5\nb,\n')
  values = {'kind': 'regression', 'labels': (), 'train': 'a.csv'}
  assert _message(tmp_path, **values).endswith(
    "score '' is not a number; fix the row; or skip rows without a label by"
    " config.custom_tasks.own.no_label=('',)"
  )
  rows = _examples(_config(tmp_path, **values, no_label=('',)))
  assert [row.label for row in rows] == [0.5]


_SAVED = Path(__file__).parent / 'golden' / 'saved_dataset'
_SAVED_ROWS = json.loads((_SAVED / 'rows.json').read_text())


def test_a_dataset_that_hugging_face_saved(tmp_path):
  """Golden: rows by the library that saved the folder."""
  rows = {'train': 'train', 'text': ('text',), 'label': 'label'}
  config = _config(_SAVED, **rows, format='datasets', no_label=('-1',))
  task = registry.resolve(config)['own']
  examples = _examples(config)
  found = [(row.uid, row.text_a, task.labels[row.label]) for row in examples]
  assert found == [
    (f'own/train/{i}', row['text'], row['name'])
    for i, row in enumerate(_SAVED_ROWS)
    if row['name']
  ]
  message = _message(_SAVED, **rows, format='datasets')
  assert message.startswith(
    "data/train, row 2: label '-1' is none of 'down', 'up'"
  )
  # Names of classes are read of Parquet too.
  from pyarrow import parquet

  batches = [
    pa.ipc.open_stream(path.read_bytes()).read_all()
    for path in sorted((_SAVED / 'train').glob('*.arrow'))
  ]
  parquet.write_table(pa.concat_tables(batches), tmp_path / 'train')
  config = _config(tmp_path, **rows, format='parquet', no_label=('-1',))
  assert _examples(config) == examples
  # The doctor sees the same.
  config = _config(
    _SAVED, **rows, format='datasets', no_label=('-1',), dev='test'
  )
  report = examine.examine(registry.resolve(config), config.data, None)
  assert [each.rows for each in report.splits] == [3, 1]


def test_words_and_tags_of_a_saved_dataset():
  values = {
    'kind': 'tagging',
    'format': 'datasets',
    'labels': ('O', 'B-PER', 'I-PER'),
    'text': ('tokens',),
    'label': 'ner_tags',
  }
  # One text has a tab in a word and one a line break.
  config = _config(_SAVED, **values, train='test')
  assert [(row.text_a, row.label) for row in _examples(config)] == [
    ('no caf\u00e9 open', (0, 1, 2))
  ]
  assert _message(_SAVED, **values, train='train') == (
    "data/train, row 0: field 'tokens', item 1 is 'is\\nwell'; give a word,"
    ' without spaces or line breaks'
  )
  assert _message(_SAVED, **values | {'label': 'text'}, train='test') == (
    "data/test, row 0: field 'text' is not a list of 3 tags, one for each word;"
    ' fix the row'
  )
  assert _message(_SAVED, **values | {'text': ('text',)}, train='test') == (
    "data/test, row 0: field 'text' is not a list of words; give a list"
    ' of strings'
  )


def test_mistakes_of_saved_datasets(tmp_path, monkeypatch):
  shutil.copytree(_SAVED, tmp_path / 'd')
  rows = {'format': 'datasets', 'text': ('text',), 'label': 'label'}
  state = tmp_path / 'd/train/state.json'
  assert _message(tmp_path, **rows, train='d') == (
    'data/d: holds several splits: train, test; name the folder of one, d/SPLIT'
  )
  assert _message(tmp_path, **rows, train='e') == (
    'data/e: No such file or directory; fix config.data.dir or'
    ' config.custom_tasks.own'
  )
  good = state.read_text()
  for content in ('{', '{}', '{"_data_files": [{"filename": "../x"}]}'):
    state.write_text(content)
    message = _message(tmp_path, **rows, train='d/train')
    assert message.startswith('data/d/train/state.json: ')
    assert message.endswith('Dataset.save_to_disk wrote')
  state.write_text(good)
  file = tmp_path / 'd/train/data-00000-of-00002.arrow'
  file.write_bytes(file.read_bytes()[:400])
  message = _message(tmp_path, **rows, train='d/train')
  assert message.startswith(
    'data/d/train: is not a saved dataset, or is damaged'
  )
  state.unlink()
  assert ': has no state.json; give a folder that ' in _message(
    tmp_path, **rows, train='d/train'
  )


def test_a_null_among_rows_of_several_labels_is_told(tmp_path):
  """To skip such rows would leave out all that have none of the labels."""
  path = tmp_path / 'a.jsonl'
  path.write_text('{"body": "a", "mood": null}\n')
  rows = {'train': path.name, 'format': 'jsonl', 'kind': 'multilabel'}
  message = _message(tmp_path, **rows, labels=('up', 'down'))
  assert 'write an empty list or text if it has none of the labels' in message
  path.write_text('{"body": "a", "mood": []}\n')
  config = _config(tmp_path, **rows, labels=('up', 'down'))
  assert [row.label for row in _examples(config)] == [()]
