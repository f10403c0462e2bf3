"""A format of one's own: a reader, and one line of `formats.FORMATS`."""

from pathlib import Path
import types

import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import compressed
from bam_jax.data import formats
from bam_jax.data import lines
from bam_jax.data import registry
from bam_jax.data import sources
from bam_jax.tasks import task as task_lib


def _read(path, table, fault=None):
  """Rows such as `2|a text`: the label, a bar, the text."""

  def make(index: int, unit: tuple[int, str]) -> lines.Row:
    number, line = unit
    label, bar, text = line.partition('|')
    if not bar:
      raise errors.UserError(f'{path}:{number}: no bar; fix the row')
    return lines.Row(index, number, (text,), label)

  with lines.read(path, lines.decoding(fault, table)) as numbered:
    yield from lines.usable(numbered, make, fault)


def _config(format: str) -> config_lib.Config:
  config = config_lib.default_config()
  config.custom_tasks.own = config_lib.custom_task(
    format=format,
    labels=('no', 'yes'),
    text=('text',),
    train='a.bar',
    dev='a.bar',
  )
  config.tasks = ('own',)
  return config_lib.from_config_dict(config)


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
  monkeypatch.setitem(
    formats.FORMATS, 'bar', formats.Format(_read, 'named', 'tsv')
  )
  return tmp_path / 'a.bar'


def test_a_registered_format_is_read(path):
  path.write_text('yes|a b\nno|c|d\n')
  config = _config('bar')
  task = registry.resolve(config)['own']
  data = config_lib.DataConfig(dir=str(path.parent))
  assert [tuple(each) for each in sources.read(task, 'train', data)] == [
    ('own/train/0', 'a b', None, 1),
    ('own/train/1', 'c|d', None, 0),
  ]


def test_rows_that_cannot_be_used_are_counted(path):
  path.write_text('yes|a\nno\nno|c\n')
  task = registry.resolve(_config('bar'))['own']
  faults = []
  rows = _read(path, task.tables['train'], faults.append)
  assert [row.index for row in rows] == [0, 2]
  assert [str(fault) for fault in faults] == [f'{path}:2: no bar; fix the row']


@pytest.mark.parametrize(
  ('name', 'content'),
  [
    ('tsv', 'text\tlabel\na\tno\nb\nc\tno\n'),
    ('csv', 'text,label\na,no\nb\nc,no\n'),
    ('jsonl', '{"text": "a", "label": "no"}\n{\n{}\n'),
    ('conll', 'a O\nb\n\nc O\n'),
    ('squad', '{"data": [{"paragraphs": [{"context": ""}]}]}'),
  ],
)
def test_a_refused_row_leaves_no_file_open(
  tmp_path, monkeypatch, name, content
):
  path = tmp_path / 'rows'
  path.write_text(content)
  opened = []

  def open_binary(*args):
    opened.append(compressed.open_binary(*args))
    return opened[-1]

  monkeypatch.setattr(
    lines, 'compressed', types.SimpleNamespace(open_binary=open_binary)
  )
  columns = (0, 1) if name == 'conll' else ('text', 'label')
  table = task_lib.Table(text=columns[:1], label=columns[1], format=name)
  with pytest.raises(errors.UserError) as told:
    list(formats.FORMATS[name].read(path, table))
  # The error holds what was read when it was raised.
  assert told.tb
  assert opened
  assert all(file.closed for file in opened)


def test_a_format_that_is_not_registered_is_refused():
  with pytest.raises(errors.UserError) as caught:
    registry.resolve(_config('bar'))
  assert str(caught.value) == (
    "config.custom_tasks.own.format: 'bar' is none of tsv, csv, jsonl, parquet,"
    ' datasets, conll, squad'
  )
