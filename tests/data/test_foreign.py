"""Files of other formats: what they are, and commands that fix them.

Each command is run by a shell as it is printed, and what it leaves is read.
"""

import bz2
import codecs
import csv
import dataclasses
import gzip
import io
import json
import lzma
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import foreign
from bam_jax.data import sources
from bam_jax.data import unlabelled
from bam_jax.tasks import glue
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_ROWS = [('a "quoted" day, fine', 'up'), ('caf\u00e9; d\u00fcll', 'down')]
_TEXTS = [text for text, _ in _ROWS]
_TSV = 'text\tlabel\n' + ''.join('\t'.join(row) + '\n' for row in _ROWS)
# A blank and quotes, as a user's own folder may have.
_FOLDER = "it's data"


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  Path(_FOLDER).mkdir()


def _task(file: str, format: str = 'tsv', **table) -> task_lib.Task:
  columns = {'text': ('text',), 'label': 'label'} | table
  table = task_lib.Table(file=file, format=format, **columns)
  return task_lib.Task(
    'mood',
    kinds.KINDS['classification'],
    ('accuracy',),
    'accuracy',
    {'train': table},
    labels=('down', 'up'),
    test_splits=(),
  )


def _read(task: task_lib.Task) -> list[tuple[str, str]]:
  data = config_lib.DataConfig(dir=_FOLDER)
  rows = sources.read(task, 'train', data)
  return [(row.text_a, task.labels[row.label]) for row in rows]


def _write(name: str, content: bytes | str) -> Path:
  path = Path(_FOLDER, name)
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return path


def _refused(task: task_lib.Task) -> str:
  with pytest.raises(errors.UserError) as told:
    _read(task)
  return str(told.value)


def _predicted(path: Path, task: task_lib.Task) -> list[str]:
  """The texts of a file that is to be predicted."""
  with unlabelled.open_rows(str(path), task) as rows:
    return [text for (text,) in rows.texts]


def _run(message: str) -> str:
  """Runs the command in a message; returns the file to name after it."""
  command, _, new = message.partition('; run ')[2].partition(' and name ')
  path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
  subprocess.run(
    ['bash', '-c', command], check=True, env=os.environ | {'PATH': path}
  )
  return Path(new.removesuffix(', of format jsonl')).name


@pytest.mark.parametrize(
  ('make', 'suffix', 'program', 'name'),
  [
    (gzip.compress, '.gz', 'gzip', 'gzip'),
    (bz2.compress, '.bz2', 'bzip2', 'bzip2'),
    (lzma.compress, '.xz', 'xz', 'xz'),
  ],
)
@pytest.mark.parametrize('has_suffix', [True, False])
def test_compressed_twice(make, suffix, program, name, has_suffix):
  file = f'train.tsv{suffix if has_suffix else ""}'
  path = _write(file, make(make(_TSV.encode())))
  message = _refused(_task(file))
  assert message.startswith(f'{path}: is compressed by {name}; run {program} ')
  if shutil.which(program):
    assert _read(_task(_run(message) or file)) == _ROWS


def test_a_file_beside_a_compressed_one_is_not_written_over():
  _write('train.tsv.gz', gzip.compress(gzip.compress(_TSV.encode())))
  _write('train.tsv', 'mine')
  message = _refused(_task('train.tsv.gz'))
  with pytest.raises(subprocess.CalledProcessError):
    _run(message)
  assert Path(_FOLDER, 'train.tsv').read_text() == 'mine'


def test_zstandard_without_pyarrow(monkeypatch):
  monkeypatch.setattr(errors, 'absent', list)
  path = _write('train.tsv.zst', b'\x28\xb5\x2f\xfd\x04\x00')
  assert _refused(_task('train.tsv.zst')).startswith(
    f"{path}: is compressed by Zstandard; pip install 'bam-jax[arrow]' to read"
    ' it, or run zstd -dk '
  )


@pytest.mark.parametrize('encoding', [
  'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32',
])  # fmt: skip
@pytest.mark.parametrize('text', ['caf\u00e9', '\u5929\u6c14\u5f88\u597d'])
def test_other_encodings_of_unicode(encoding, text):
  content = f'text\tlabel\n{text}\tup\n' + f'{text * 9}\tdown\n' * 9
  _write('train.tsv', content.encode(encoding))
  message = _refused(_task('train.tsv'))
  assert re.search(r': is text in UTF-(16|32)(LE|BE)?, not UTF-8; run', message)
  assert _run(message) == ''
  assert _read(_task('train.tsv'))[0] == (text, 'up')


def test_big_endian_with_a_mark():
  _write('train.tsv', codecs.BOM_UTF16_BE + _TSV.encode('utf-16-be'))
  _run(_refused(_task('train.tsv')))
  assert _read(_task('train.tsv')) == _ROWS


def _zip(*names: str) -> bytes:
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as archive:
    for name in names:
      archive.writestr(name, _TSV)
  return file.getvalue()


def _tar() -> bytes:
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w') as archive:
    entry = tarfile.TarInfo('train.tsv')
    entry.size = len(_TSV.encode())
    archive.addfile(entry, io.BytesIO(_TSV.encode()))
  return file.getvalue()


@pytest.mark.parametrize(
  ('content', 'what', 'remedy'),
  [
    (_zip('train.tsv'), 'a zip archive', 'run unzip '),
    (_tar(), 'a tar archive', 'run mkdir '),
    (_zip('[Content_Types].xml'), 'an Office document', 'open it in'),
    (_zip('xl/workbook.xml'), 'an Office document', 'open it in'),
    (
      _zip('mimetype').replace(
        _TSV.encode(), b'application/vnd.oasis.opendocument.spreadsheet'
      ),
      'an OpenDocument file',
      'open it in',
    ),
    (
      b'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1' + bytes(99),
      'an old Office document',
      'open it in',
    ),
    (b'PAR1\x15\x04\x15', 'a Parquet file', "set the task's format='parq"),
    (
      'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n',
      'a pointer of Git LFS',
      "run git -C 'it'\"'\"'s data' lfs pull",
    ),
    ('\ufeff\n<!doctype HTML>\n<title>Sign in</title>', 'a page of HTML',
     'download the file again'),
    ('<html lang="en"><head>', 'a page of HTML', 'download the file again'),
    (b'\x80\x04\x95\x00\x00\x00\xff\xc3', 'binary, not text', 'give a text'),
  ],
  ids=['zip', 'tar', 'xlsx', 'xlsx-2', 'ods', 'xls', 'parquet', 'lfs', 'html',
       'html-2', 'pickle'],
)  # fmt: skip
@pytest.mark.parametrize('format', ['tsv', 'jsonl', 'conll', 'squad'])
def test_what_is_no_text(content, what, remedy, format):
  path = _write('train.tsv', content)
  columns = {'conll': {'text': (0,), 'label': 1}}.get(format, {})
  message = _refused(_task('train.tsv', format, **columns))
  assert message.startswith(f'{path}: is {what}')
  # A zip archive of one entry could be longer than its remedy tells.
  if format == 'tsv':
    assert f'; {remedy}' in message


@pytest.mark.skipif(not shutil.which('tar'), reason='needs tar')
def test_a_tar_archive_is_unpacked_beside_itself():
  _write('all.tar', _tar())
  assert _run(_refused(_task('all.tar'))) == 'a file in that folder'
  assert _read(_task('all.tar.unpacked/train.tsv')) == _ROWS


def test_texts_that_only_look_like_something_else_are_read():
  rows = [
    ('PK at the door', 'up'),
    ('<html> is a tag', 'down'),
    ('BZh is no word', 'up'),
    ('a\0zero', 'down'),
  ]
  for row in rows:
    _write('train.tsv', '\t'.join(row) + '\n')
    columns = {'text': (0,), 'label': 1, 'header': False}
    assert _read(_task('train.tsv', **columns)) == [row]


def _table(mark: str, dialect: int = csv.QUOTE_MINIMAL) -> str:
  file = io.StringIO()
  writer = csv.writer(file, delimiter=mark, quoting=dialect)
  writer.writerows([('id', 'text', 'label')])
  writer.writerows((i, *row) for i, row in enumerate(_ROWS))
  return file.getvalue()


@pytest.mark.parametrize('mark', [',', ';', '|'])
@pytest.mark.parametrize('quoting', [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_csv(mark, quoting):
  path = _write('train.csv', '\ufeff' + _table(mark, quoting))
  assert _refused(_task('train.csv')) == (
    f"{path}:1: the columns are separated by '{mark}', as in CSV, not by tabs;"
    " set the task's format='csv', or give an unlabelled file the suffix .csv"
  )
  assert _read(_task('train.csv', 'csv')) == _ROWS
  assert _predicted(path, _task('')) == _TEXTS
  with pytest.raises(errors.UserError, match='give it as a file'):
    _predicted(path.rename(f'{_FOLDER}/train.tsv'), _task(''))


def test_csv_without_a_header():
  path = _write('train.csv', _table(',').partition('\n')[2])
  columns = {'text': (1,), 'label': 2, 'header': False}
  assert _predicted(path, _task('', **columns)) == _TEXTS


def test_quoted_cells_between_tabs():
  path = _write('train.tsv', _table('\t', csv.QUOTE_ALL))
  assert ':1: the cells are quoted, and ' in _refused(_task('train.tsv'))
  assert _read(_task('train.tsv', 'csv')) == _ROWS
  # Of the suffix of the task's own files, and so of their format.
  assert _predicted(path, _task('other.tsv', 'csv')) == _TEXTS


def test_a_header_of_other_names_is_no_csv():
  _write('train.tsv', 'words, all of them\tlabel\nx\tup\n')
  assert ":1: no column 'text'; the first line has" in _refused(
    _task('train.tsv')
  )


@pytest.mark.parametrize('indent', [None, 2])
@pytest.mark.parametrize('mark', ['', '\ufeff'])
def test_a_json_array(indent, mark):
  rows = [{'text': text, 'label': label} for text, label in _ROWS]
  path = _write('train.json', mark + json.dumps(rows, indent=indent))
  message = _refused(_task('train.json', 'jsonl'))
  assert message.startswith(
    f'{path}: is one JSON array, not one object per line;'
  )
  assert _read(_task(_run(message), 'jsonl')) == _ROWS


def test_a_long_json_array_is_told_by_its_beginning():
  _write('train.json', '[' + '{"text": "long", "label": "up"},' * (1 << 16))
  assert 'is one JSON array' in _refused(_task('train.json', 'jsonl'))


def test_official_files_are_not_converted():
  path = _write('rte.csv', 'index,sentence1,sentence2,label\n')
  task = glue.TASKS['rte']
  table = dataclasses.replace(task.tables['train'], file=path.name)
  task = dataclasses.replace(task, tables={'train': table})
  assert 'the first line has columns 0 to 0; fix' in _refused(task)


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('a.tsv', gzip.compress(b'x' * 99)[:-1], 'compressed by gzip, but damaged'),
    ('a.tsv', _TSV.encode('utf-16'), 'is text in UTF-16, not UTF-8; run iconv'),
    ('a.txt', _TSV.encode(), 'is neither .tsv, .csv, .jsonl nor .parquet, nor'),
    ('a.tsv', _table(',').encode(), "separated by ',', as in CSV, not by tabs"),
    ('a.jsonl', b'[\n{"text": "x"}]', 'is one JSON array, not one object'),
  ],
  ids=['gzip', 'utf-16', 'txt', 'commas', 'array'],
)  # fmt: skip
def test_a_file_to_be_predicted(name, content, message):
  path = _write(name, content)
  with (
    pytest.raises(errors.UserError, match=re.escape(message)),
    unlabelled.open_rows(str(path), _task('', 'generated')),
  ):
    pass


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (
      b'\x28\xb5\x2f\xfd\x04\x00',
      'is compressed by Zstandard, but damaged .*; get the file again',
    ),
    (
      'text\n'.encode('utf-16'),
      'in UTF-16, .*; send it through iconv -f UTF-1',
    ),
    (b'[{"text": "x"}]', 'is one JSON array, .*; give one JSON object per'),
    (
      _table(',').encode(),
      'not by tabs; give it as a file with the suffix .csv',
    ),
  ],
  ids=['zstd', 'utf-16', 'array', 'csv'],
)
def test_standard_input(monkeypatch, content, message):
  monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(content)))
  with (
    pytest.raises(errors.UserError, match=f'^standard input.* {message}'),
    unlabelled.open_rows('-', _task('train.tsv')),
  ):
    pass


def test_a_head_that_ends_within_a_character():
  head = ('\u00e9' * foreign.HEAD_BYTES).encode()[1 : foreign.HEAD_BYTES + 1]
  assert foreign.describe(b'a' + head[1:], 'x') is None
