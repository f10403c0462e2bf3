"""Rows of a user's own. Oracle: the texts that were written."""

import dataclasses
import gzip
import io
import json
import pathlib
import sys

import pandas as pd
import pyarrow as pa
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import registry
from bam_jax.data import unlabelled
from bam_jax.tasks import glue
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib


def _task(text, header=True) -> task_lib.Task:
  table = task_lib.Table(text=text, label=-1, header=header)
  return task_lib.Task(
    'own', kinds.KINDS['regression'], ('pearson',), 'pearson',
    tables={'train': table}, test_splits=(),
  )  # fmt: skip


_NAMED = _task(('head', 'body'))
_NUMBERED = _task((1,), header=False)
_NUMBERED_CSV = dataclasses.replace(
  _NUMBERED,
  tables={
    'train': dataclasses.replace(_NUMBERED.tables['train'], format='csv')
  },
)
_COLA = glue.TASKS['cola']


def _read(path, task) -> tuple[bool, list[tuple[str, ...]]]:
  with unlabelled.open_rows(str(path), task) as rows:
    texts = list(rows.texts)
  for error in texts:
    if isinstance(error, errors.UserError):
      raise error
  return rows.has_header, texts


@pytest.mark.parametrize(
  ('name', 'content', 'task', 'header', 'texts'),
  [
    ('a.tsv', 'id\tbody\thead\n1\tb\ta\n2\t"\t\n', _NAMED, True,
     [('a', 'b'), ('', '"')]),
    ('a.tsv', 'text_pair\ttext\nb\ta\n', _NAMED, True, [('a', 'b')]),
    ('a.tsv', '\ufefftext\r\né\r\n', _COLA, True, [('é',)]),
    # The columns of CoLA's test file, below its header.
    ('a.tsv', 'index\tsentence\n0\ta\n', _COLA, True, [('a',)]),
    ('a.tsv', '0\ta\n1\tb\n\n\n', _NUMBERED, False, [('a',), ('b',)]),
    ('a.tsv', 'text\ta\nb\tc', _NUMBERED, True, [('b',)]),
    ('a.csv', 'sep=;\n0;a\n1;b\n', _NUMBERED_CSV, False, [('a',), ('b',)]),
    ('a.csv', 'sep=;\ntext;a\nb;c\n', _NUMBERED_CSV, True, [('b',)]),
    ('a.csv', 'sep=;\nid;text\n1;b\n', _COLA, True, [('b',)]),
    ('a.jsonl', '{"text": "a\\nb", "x": 1}\n{"text": "c"}\n', _COLA, False,
     [('a\nb',), ('c',)]),
    ('a.jsonl', '{"head": "a", "body": "b"}\n{"text": "c", "text_pair": "d"}',
     _NAMED, False, [('a', 'b'), ('c', 'd')]),
  ],
)  # fmt: skip
def test_rows_are_read(tmp_path, name, content, task, header, texts):
  path = tmp_path / name
  path.write_bytes(content.encode())
  assert _read(path, task) == (header, texts)


@pytest.mark.parametrize(
  ('content', 'has_header', 'text'),
  [('{"text": "a"}\n', False, 'a'), ('text\nb\n', True, 'b')],
  ids=['jsonl', 'tsv'],
)
def test_standard_input(monkeypatch, content, has_header, text):
  stdin = io.TextIOWrapper(io.BytesIO(content.encode()))
  monkeypatch.setattr(sys, 'stdin', stdin)
  assert _read('-', _COLA) == (has_header, [(text,)])


@pytest.mark.parametrize(
  ('content', 'line', 'message'),
  [
    ('{"text": "a"}\n{"body": "b"}', 2,
     "no 'text'; here are 'body'; give the texts under such names"),
    ('text\na\nb\tc', 3,
     '2 columns where the first line has 1; fix the row'),
  ],
)  # fmt: skip
def test_a_row_of_standard_input_that_is_none(
  monkeypatch, content, line, message
):
  """No error names the file that holds a copy of the input."""
  stdin = io.TextIOWrapper(io.BytesIO(content.encode()))
  monkeypatch.setattr(sys, 'stdin', stdin)
  with pytest.raises(errors.UserError) as caught:
    _read('-', _COLA)
  assert str(caught.value) == f'standard input:{line}: {message}'


@pytest.mark.parametrize(
  ('name', 'content', 'task', 'message'),
  [
    ('a.csv', b'\ntext\nb\n', _COLA, r'a.csv:1: the line is empty; remove'),
    ('a.csv', b'sep=;\n\ntext\nb\n', _COLA, r'a.csv:2: the line is empty; '),
    ('a.csv', b'text\n"b', _COLA, r'a.csv:2: not CSV .*; close the quotation'),
    ('a.tsv', b'head\tbody\na\t\n\t \n', _NAMED,
     r"a.tsv:3: 'head' and 'body' are empty; give a text"),
    ('a.jsonl', b'{"text": " "}', _COLA, r"a.jsonl:1: 'text' is empty; give"),
    ('a.tsv', b'', _COLA, r'a.tsv: has no usable row; fix --input'),
    ('a.tsv', b'head\nb\n', _NAMED, r"a.tsv:1: no 'body' beside 'head'; g"),
    ('a.tsv', b'heads\nb\n', _NAMED,
     r"a.tsv:1: no 'head' and 'body', nor .*; the nearest is 'heads'; give"),
    ('a.tsv', b'a\n', _NUMBERED, r'a.tsv:1: no column 1; .* columns 0 to 0;'),
    ('a.tsv', b'text\ttext\n', _COLA, r"a.tsv:1: two columns are named 'text'"),
    ('a.tsv', b'text\nb\tc\n', _COLA, r'a.tsv:2: 2 columns where .* has 1;'),
    ('a.tsv', b'text\nb\n\nc\n', _COLA, r"a.tsv:3: 'text' is empty; give"),
    ('a.tsv', b'text\nb\n\xff\n', _COLA, r'a.tsv:3: not UTF-8 .*; convert'),
    ('a.jsonl', b'{"text": "a"}\n{', _COLA, r'a.jsonl:2: not JSON \(.* at col'),
    ('a.jsonl', b'{"text": "a"}\n\n{"text": "b"}', _COLA, r'a.jsonl:2: the l'),
    ('a.jsonl', b'\n{"text": "a"}', _COLA, r'a.jsonl:1: the line is empty;'),
    ('a.jsonl', b'[]', _COLA, r'a.jsonl:1: a list in place of an object'),
    ('a.jsonl', b'{"body": "a"}', _NAMED, r":1: no 'head' beside 'body'; give"),
    ('a.jsonl', b'{"text": 1}', _COLA, r"a.jsonl:1: 'text' is not a string"),
    ('a.jsonl', b'{"text": "\\ud800"}', _COLA, r"'text' holds half of a"),
  ],
)  # fmt: skip
def test_a_row_that_is_none_is_told_with_its_line(
  tmp_path, name, content, task, message
):
  path = tmp_path / name
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match=message):
    _read(path, task)


@pytest.mark.parametrize(
  ('name', 'lines', 'kept'),
  [
    ('a.tsv', ['text\tid', 'a\t7', 'b', '\t8', 'c\t9\t', '', 'd\t'], '7_8__'),
    (
      'a.csv',
      ['id,text', '7,"a\n"', '1,2,3', '8,"\n"', '9', '', ',d', ''],
      '7_8__',
    ),
    (
      'a.jsonl',
      ['{"text": "a", "id": 7}', '{', '{"id": 8, "text": null}', '',
       '[1]', '{"text": "d"}'],
      '7_8__',
    ),
  ],
)  # fmt: skip
def test_rows_around_others_that_are_none(tmp_path, name, lines, kept):
  """Errors and ids stand where their rows do; only an object has no id."""
  path = tmp_path / name
  path.write_text('\n'.join(lines) + '\n')
  with unlabelled.open_rows(str(path), _COLA, ('id', 'none')) as rows:
    assert rows.kept == ('id',)
    found = list(rows.rows)
  assert [row.text[0].strip() if row.text else '' for row in found] == [
    'a', *[''] * (len(kept) - 1), 'd'
  ]  # fmt: skip
  assert [bool(row.error) for row in found] == [bool(not r.text) for r in found]
  ids = [str(row.kept.get('id', '_')) for row in found]
  assert ''.join(ids[:-1]) == kept and ids[-1] in ('', '_')


def test_a_line_without_an_end(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"text": "a"}\n' + json.dumps({'text': 'a' * (1 << 20)}))
  with pytest.raises(errors.UserError, match=r'a.jsonl:2: a line of 1048576'):
    _read(path, _COLA)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('none.tsv', 'No such file or directory; fix --input$'),
    ('folder.tsv', 'has no state.json; give a folder that '),
  ],
)
def test_a_file_that_cannot_be_opened(tmp_path, name, message):
  (tmp_path / 'folder.tsv').mkdir()
  with pytest.raises(errors.UserError, match=f'{name}: {message}'):
    _read(tmp_path / name, _COLA)


_OWN = {
  'text': dict(text=('entry.text',), format='jsonl', train='a.json'),
  'pair': dict(text=('head', 'body'), format='csv', train='a.txt'),
  'names': dict(
    kind='tagging', labels=('O', 'B-X'), text=('tokens',), format='parquet',
    train='a.parquet'
  ),
  'words': dict(
    kind='tagging', labels=('O', 'B-X'), text=('1',), label='0',
    format='conll', train='a.conll'
  ),
  'answers': dict(kind='qa', format='squad', train='a.json'),
}  # fmt: skip
# Rows of each task as mappings: two, the first with what CSV quotes.
_ROWS = {
  'text': [{'entry': {'text': 'a, "b"\nc'}}, {'entry': {'text': 'd'}}],
  'pair': [{'head': 'a, "b"\nc', 'body': 'd', 'x': '1'},
           {'head': 'e', 'body': '', 'x': '2'}],
  'names': [{'tokens': ['a', 'b']}, {'tokens': ['c']}],
  'words': [{'text': 'a b'}, {'text': 'c'}],
  'answers': [{'question': 'q?', 'context': 'a\nb'},
              {'question': 'r?', 'context': 'c'}],
}  # fmt: skip
_TEXTS = {
  'text': [('a, "b"\nc',), ('d',)],
  'pair': [('a, "b"\nc', 'd'), ('e', '')],
  'names': [('a b',), ('c',)],
  'words': [('a b',), ('c',)],
  'answers': [('q?', 'a\nb'), ('r?', 'c')],
}


def _content(rows: list[dict], suffix: str) -> bytes:
  frame = pd.DataFrame(rows)
  if suffix == 'conll':
    blocks = [row['text'].split() for row in rows]
    text = '\n\n'.join('\n'.join(f'O {w}' for w in block) for block in blocks)
    return f'{text}\n'.encode()
  if suffix == 'json':
    paragraphs = [{'context': r['context'], 'qas': [r]} for r in rows]
    return json.dumps({'data': [{'paragraphs': paragraphs}]}).encode()
  if suffix == 'parquet':
    return frame.to_parquet()
  if suffix == 'jsonl':
    return ''.join(json.dumps(row) + '\n' for row in rows).encode()
  # As Excel writes it.
  return frame.to_csv(index=False, sep=';').encode('utf-8-sig')


@pytest.mark.parametrize(
  ('task', 'suffix'),
  [
    ('text', 'jsonl'), ('text', 'parquet'), ('pair', 'csv'), ('pair', 'txt'),
    ('pair', 'jsonl'), ('pair', 'parquet'), ('names', 'jsonl'),
    ('names', 'parquet'), ('words', 'conll'), ('words', 'jsonl'),
    ('words', 'csv'), ('answers', 'json'), ('answers', 'csv'),
    ('answers', 'parquet'),
  ],
)  # fmt: skip
def test_every_format_of_training_data(tmp_path, task, suffix):
  """By the columns of the task, compressed too."""
  config = config_lib.default_config()
  values = {'labels': ('O', 'X'), 'dev': 'b'} | _OWN[task]
  if values.get('kind') == 'qa':
    del values['labels']
  config.custom_tasks.own = config_lib.custom_task(**values)
  config.tasks = ('own',)
  own = registry.resolve(config_lib.from_config_dict(config))['own']
  content = _content(_ROWS[task], suffix)
  files = {suffix: content}
  if suffix != 'parquet':
    files |= {f'{suffix}.gz': gzip.compress(content)}
    files |= {f'{suffix}.zst': pa.compress(content, 'zstd', asbytes=True)}
  for name, data in files.items():
    path = tmp_path / f'in.{name}'
    path.write_bytes(data)
    assert _read(path, own) == (suffix in ('csv', 'txt'), _TEXTS[task])


def test_a_saved_dataset_is_read(tmp_path):
  folder = pathlib.Path(__file__).parent / 'golden' / 'saved_dataset'
  expected = json.loads((folder / 'rows.json').read_text())
  found = _read(folder / 'train', _COLA)[1]
  assert found == [(row['text'],) for row in expected]
