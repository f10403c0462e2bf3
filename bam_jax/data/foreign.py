"""Recognises files of another format, and names the command that converts them.

Examples are a compressed file, UTF-16, a spreadsheet, or a login page that was
saved under the name of a table.
"""

import codecs
from collections.abc import Iterable
import csv
import re
import shlex

from bam_jax import errors

# Bytes from the beginning of a file that tell what it is.
HEAD_BYTES = 4096

# First bytes, name, suffix, program.
_COMPRESSED = (
  (rb'\x1f\x8b', 'gzip', '.gz', 'gzip'),
  (rb'BZh[1-9](1AY&SY|\x17rE8P\x90)', 'bzip2', '.bz2', 'bzip2'),
  (rb'\xfd7zXZ\x00', 'xz', '.xz', 'xz'),
  (rb'\x28\xb5\x2f\xfd', 'Zstandard', '.zst', 'zstd'),
)
_SAVE_SHEET = (
  'open it in the spreadsheet program and save the sheet as text in UTF-8, with'
  ' tabs between the columns'
)
# First bytes, what such a file is, remedy; {} is the quoted path.
_OTHERS = (
  (
    rb'PK\x03\x04.{0,512}(\[Content_Types\]\.xml|xl/|_rels/|docProps/)',
    'an Office document, such as an Excel sheet',
    _SAVE_SHEET,
  ),
  (
    rb'PK\x03\x04.{4,64}mimetypeapplication/vnd\.oasis',
    'an OpenDocument file, such as a sheet of LibreOffice',
    _SAVE_SHEET,
  ),
  (
    rb'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1',
    'an old Office document, such as an Excel sheet',
    _SAVE_SHEET,
  ),
  (
    rb'PK(\x03\x04|\x05\x06)',
    'a zip archive',
    'run unzip {0} -d {0}.unpacked and name a file in that folder',
  ),
  (
    rb'.{257}ustar',
    'a tar archive',
    'run mkdir {0}.unpacked && tar -xf {0} -C {0}.unpacked and name a file in'
    ' that folder',
  ),
  (
    rb'PAR1',
    'a Parquet file',
    'where pandas and pyarrow are installed, run python -c "import pandas, sys;'
    " pandas.read_parquet(sys.argv[1]).to_json(sys.argv[2], orient='records',"
    ' lines=True)" {0} {0}.jsonl and name {0}.jsonl, of format jsonl',
  ),
  (
    rb'version https://git-lfs\.github\.com/spec/',
    'a pointer of Git LFS, not the file itself',
    'run git -C {1} lfs pull',
  ),
  (
    rb'(\xef\xbb\xbf)?\s*(<!DOCTYPE html|<html[\s>])(?![^\n]*\t)',
    'a page of HTML, such as that of a login or of an error, saved in place of'
    ' the data',
    'download the file again',
  ),
)
_JSON_ARRAY = re.compile(rb'(\xef\xbb\xbf)?\s*\[\s*\{')

# Text in UTF-16 without a mark has ASCII characters in this share at least:
# tabs, line breaks, figures.
_ASCII_SHARE = 0.02
# Zeros: in a file that is no UTF-8, and so no text; in one that reads as UTF-8,
# where each character of English in UTF-16 has one.
_BINARY_ZEROS = 0.01
_UTF_16_ZEROS = 0.3


def check(head: bytes, path: str) -> None:
  """Raises if a file is known not to be UTF-8 text, by its first bytes.

  Args:
    head: `HEAD_BYTES` of the file, or all of it.
    path: of the file; empty: standard input.

  Raises:
    errors.UserError: it is; names the format and the remedy.
  """
  found = describe(head, path)
  if found:
    what, remedy = found
    raise errors.UserError(f'{path or "standard input"}: is {what}; {remedy}')


def describe(head: bytes, path: str) -> tuple[str, str] | None:
  """Returns what a file is and the remedy; None for text or an unknown format.

  Args:
    head: as for `check`.
    path: as for `check`.
  """
  for pattern, name, suffix, program in _COMPRESSED:
    if re.match(pattern, head):
      return f'compressed by {name}', _decompress(path, suffix, program)
  for pattern, what, remedy in _OTHERS:
    if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
      folder = path.rpartition('/')[0] or '.'
      remedy = remedy.format(shlex.quote(path), shlex.quote(folder))
      return what, remedy if path else 'give the text itself'
  if encoding := _encoding(head):
    return f'text in {encoding}, not UTF-8', _replace(
      path, f'iconv -f {encoding} -t UTF-8'
    )
  if head.count(0) > _BINARY_ZEROS * len(head) and not _is_utf_8(head):
    return 'binary, not text', 'give a text file in UTF-8'
  return None


def _decompress(path: str, suffix: str, program: str) -> str:
  if path.endswith(suffix):
    return (
      f'run {program} -dk {shlex.quote(path)} and name'
      f' {path.removesuffix(suffix)}'
    )
  return _replace(path, f'{program} -dc')


def _replace(path: str, program: str) -> str:
  """Returns the command that replaces a file by its converted content."""
  if not path:
    return f'send it through {program} first'
  old, new = shlex.quote(path), shlex.quote(f'{path}.converted')
  return f'run {program} < {old} > {new} && mv {new} {old}'


def _encoding(head: bytes) -> str | None:
  """Returns the name of the encoding if a file is UTF-16 or UTF-32."""
  for mark, name in (
    (codecs.BOM_UTF32_LE, 'UTF-32'),
    (codecs.BOM_UTF32_BE, 'UTF-32'),
    (codecs.BOM_UTF16_LE, 'UTF-16'),
    (codecs.BOM_UTF16_BE, 'UTF-16'),
  ):
    if head.startswith(mark):
      return name
  if head.count(0) <= _UTF_16_ZEROS * len(head) and _is_utf_8(head):
    return None
  for name in ('UTF-16LE', 'UTF-16BE'):
    try:
      text = codecs.getincrementaldecoder(name)().decode(head)
    except UnicodeDecodeError:
      continue
    common = sum(character.isascii() for character in text)
    if '\0' not in text and common > _ASCII_SHARE * len(text):
      return name
  return None


def _is_utf_8(head: bytes) -> bool:
  try:
    codecs.getincrementaldecoder('utf-8')().decode(head)
  except UnicodeDecodeError:
    return False
  return True


def check_json_lines(head: bytes, path: str) -> None:
  """Raises if a file is one JSON array, not one object per line.

  Raises:
    errors.UserError: it is.
  """
  if not _JSON_ARRAY.match(head):
    return
  remedy = 'give one JSON object a line'
  if path:
    remedy = _to_json_lines(
      path, 'json', "json.load(open(sys.argv[1], encoding='utf-8-sig'))"
    )
  raise errors.UserError(
    f'{path or "standard input"}: is one JSON array, not an object a line;'
    f' {remedy}'
  )


def check_separator(
  line: str, columns: Iterable[tuple[int | str, ...]], path: str, where: str
) -> None:
  """Raises if a table has its columns, but not separated by tabs.

  Args:
    line: the first of the table.
    columns: sets of names or numbers; the table must have one set at least.
    path: of the file; empty: standard input.
    where: file and line, for the error.

  Raises:
    errors.UserError: they are separated by commas or the like, or quoted.
  """
  for mark in ('\t', ',', ';', '|'):
    try:
      cells = next(csv.reader([line], delimiter=mark), [])
    except csv.Error:
      return
    if not any(has_columns(cells, wanted) for wanted in columns):
      continue
    what = (
      'the cells are quoted, and a tab-separated file has no quoting here'
      if mark == '\t'
      else f'the columns are separated by {mark!r}, as in CSV, not by tabs'
    )
    by_name = any(isinstance(c, str) for wanted in columns for c in wanted)
    raise errors.UserError(
      f'{where}: {what}; {csv_remedy(path, mark, by_name)}'
    )


def has_columns(cells: list[str], columns: tuple[int | str, ...]) -> bool:
  """Returns whether a line has all columns, given by names or numbers."""
  return all(
    c in cells if isinstance(c, str) else -len(cells) <= c < len(cells)
    for c in columns
  )


def csv_remedy(path: str, mark: str, has_header: bool) -> str:
  """Returns the command that converts a table with quoting to JSON lines.

  Args:
    path: of the table; empty: standard input.
    mark: the separator of its columns.
    has_header: whether its first line names the columns; otherwise they are
      named '0', '1' ...
  """
  if not path:
    return 'give it as JSON lines'
  marked = {',': '', '\t': r", delimiter='\t'"}.get(
    mark, f", delimiter='{mark}'"
  )
  file = "open(sys.argv[1], encoding='utf-8-sig', newline='')"
  rows = f'csv.DictReader({file}{marked})'
  if not has_header:
    rows = f'map(dict, map(enumerate, csv.reader({file}{marked})))'
  return _to_json_lines(path, 'csv, json', rows)


def _to_json_lines(path: str, modules: str, rows: str) -> str:
  """Returns the command that writes rows as JSON lines beside a file."""
  old, new = shlex.quote(path), shlex.quote(f'{path}.jsonl')
  return (
    f'run python -c "import {modules}, sys;'
    f' [print(json.dumps(row)) for row in {rows}]" {old} > {new} and name'
    f' {path}.jsonl, of format jsonl'
  )
