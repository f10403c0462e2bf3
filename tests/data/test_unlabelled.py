"""Rows of a user's own. Oracle: the texts that were written."""

import io
import json
import sys

import pytest

from bam_jax import errors
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
_COLA = glue.TASKS['cola']


def _read(path, task) -> tuple[bool, list[tuple[str, ...]]]:
  with unlabelled.open_rows(str(path), task) as rows:
    return rows.has_header, list(rows.texts)


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
  ('name', 'content', 'task', 'message'),
  [
    ('a.csv', b'text\n', _COLA, r'a.csv: is neither .tsv nor .jsonl'),
    ('a.tsv', b'head\tbody\na\t\n\t \n', _NAMED,
     r"a.tsv:3: 'head' and 'body' are empty; give a text"),
    ('a.jsonl', b'{"text": " "}', _COLA, r"a.jsonl:1: 'text' is empty; give"),
    ('a.tsv', b'', _COLA, r'a.tsv: has no rows'),
    ('a.tsv', b'head\nb\n', _NAMED, r"a.tsv:1: no column 'head' and 'body'"),
    ('a.tsv', b'a\n', _NUMBERED, r'a.tsv:1: no column 1; .* columns 0 to 0;'),
    ('a.tsv', b'text\ttext\n', _COLA, r"a.tsv:1: two columns are named 'text'"),
    ('a.tsv', b'text\nb\tc\n', _COLA, r'a.tsv:2: 2 columns where .* has 1;'),
    ('a.tsv', b'text\nb\n\nc\n', _COLA, r'a.tsv:3: the line is empty; remove'),
    ('a.tsv', b'text\nb\n\xff\n', _COLA, r'a.tsv:3: not UTF-8; convert'),
    ('a.jsonl', b'{"text": "a"}\n{', _COLA, r'a.jsonl:2: not JSON \(.* at col'),
    ('a.jsonl', b'[]', _COLA, r'a.jsonl:1: a list in place of an object'),
    ('a.jsonl', b'{"body": "a"}', _NAMED, r"a.jsonl:1: no 'head' and 'body'"),
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


def test_a_line_without_an_end(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"text": "a"}\n' + json.dumps({'text': 'a' * (1 << 20)}))
  with pytest.raises(errors.UserError, match=r'a.jsonl:2: a line of 1048576'):
    _read(path, _COLA)


@pytest.mark.parametrize('name', ['none.tsv', 'folder.tsv'])
def test_a_file_that_cannot_be_opened(tmp_path, name):
  (tmp_path / 'folder.tsv').mkdir()
  with pytest.raises(errors.UserError, match=rf'{name}: (No such|Is a dir)'):
    _read(tmp_path / name, _COLA)
