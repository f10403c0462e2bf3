"""Detects files that are not plain UTF-8 text, and suggests a conversion.

Examples are a compressed file, UTF-16 text, a spreadsheet, or a login page that
was saved in place of a table. Compressed files can also be read without a
conversion, see `compressed`.
"""

import codecs
from collections.abc import Sequence
import csv
import io
import re
import shlex

from bam_jax import errors

# Advice for a file that is not UTF-8.
TO_UTF_8 = (
  'convert the file to UTF-8, by iconv -f cp1252 -t utf-8 if Excel or another'
  ' program of Windows wrote it'
)
# Number of bytes at the beginning of a file by which its format is detected.
HEAD_BYTES = 4096
# Characters that may separate the cells of a row.
SEPARATORS = ('\t', ',', ';', '|')
# Name of standard input in error messages. Its path is the empty string.
STDIN = 'standard input'

# For each compression: pattern of the first bytes, name, suffix, program.
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
# For each other format: pattern of the first bytes, description, remedy. {0} is
# the quoted path of the file, {1} the quoted path of the file's folder.
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
    "set the task's format='parquet', or give an unlabelled file the suffix"
    ' .parquet',
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
_UNICODE_MARKS = (
  (codecs.BOM_UTF32_LE, 'UTF-32'),
  (codecs.BOM_UTF32_BE, 'UTF-32'),
  (codecs.BOM_UTF16_LE, 'UTF-16'),
  (codecs.BOM_UTF16_BE, 'UTF-16'),
)
_JSON_ARRAY = re.compile(rb'(\xef\xbb\xbf)?\s*\[\s*\{')

# Text counts as UTF-16 without a byte-order mark only if more than this share
# of its characters are ASCII, such as tabs, line breaks and digits.
_ASCII_SHARE = 0.02
# A file that does not decode as UTF-8 is binary if it has more than this share
# of zero bytes.
_BINARY_ZEROS = 0.01
# A file that decodes as UTF-8 may still be UTF-16 if it has more than this
# share of zero bytes. In UTF-16, each character of English text has one.
_UTF_16_ZEROS = 0.3


def check(head: bytes, path: str) -> None:
  """Raises a `UserError` if `describe` finds that a file is not UTF-8 text."""
  if found := describe(head, path):
    what, remedy = found
    raise errors.UserError(f'{path or STDIN}: is {what}; {remedy}')


def compression(head: bytes) -> str | None:
  """Detects a file's compression, such as `gzip`; None if not compressed."""
  found = (name for start, name, *_ in _COMPRESSED if re.match(start, head))
  return next(found, None)


def describe(head: bytes, path: str) -> tuple[str, str] | None:
  """Describes a file that is not UTF-8 text, and how to convert it.

  Args:
    head: the first `HEAD_BYTES` of the file, or the whole file if shorter.
    path: path of the file; empty for standard input.

  Returns:
    A description of the file, and advice to the user; None if the file seems to
    be UTF-8 text.
  """
  quoted = shlex.quote(path)
  for pattern, name, suffix, program in _COMPRESSED:
    if re.match(pattern, head):
      remedy = _replace(path, f'{program} -dc')
      if path.endswith(suffix):
        new = path.removesuffix(suffix)
        remedy = f'run {program} -dk {quoted} and name {new}'
      return f'compressed by {name}', remedy
  for pattern, what, remedy in _OTHERS:
    if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
      folder = shlex.quote(path.rpartition('/')[0] or '.')
      remedy = remedy.format(quoted, folder)
      return what, remedy if path else 'give the text itself'
  if encoding := _encoding(head):
    remedy = _replace(path, f'iconv -f {encoding} -t UTF-8')
    return f'text in {encoding}, not UTF-8', remedy
  if head.count(0) > _BINARY_ZEROS * len(head) and _decode(head) is None:
    return 'binary, not text', 'give a text file in UTF-8'
  return None


def _replace(path: str, program: str) -> str:
  """Returns advice with a shell command that converts a file in place."""
  if not path:
    return f'send it through {program} first'
  old, new = shlex.quote(path), shlex.quote(f'{path}.converted')
  return f'run {program} < {old} > {new} && mv {new} {old}'


def _encoding(head: bytes) -> str | None:
  """Detects UTF-16 or UTF-32; returns None for any other encoding."""
  for mark, name in _UNICODE_MARKS:
    if head.startswith(mark):
      return name
  if head.count(0) <= _UTF_16_ZEROS * len(head) and _decode(head) is not None:
    return None
  for name in ('UTF-16LE', 'UTF-16BE'):
    text = _decode(head, name)
    if text is None or '\0' in text:
      continue
    if sum(map(str.isascii, text)) > _ASCII_SHARE * len(text):
      return name
  return None


def _decode(head: bytes, encoding: str = 'UTF-8') -> str | None:
  """Decodes the first bytes of a file; None if the encoding is wrong."""
  try:
    # The decoder is incremental because the last character may be cut off.
    return codecs.getincrementaldecoder(encoding)().decode(head)
  except UnicodeDecodeError:
    return None


def check_json_lines(head: bytes, path: str) -> None:
  """Raises a `UserError` if a file is one JSON array, not JSON lines."""
  if _JSON_ARRAY.match(head):
    remedy = 'give one JSON object per line'
    if path:
      old, new = shlex.quote(path), shlex.quote(f'{path}.jsonl')
      rows = "json.load(open(sys.argv[1], encoding='utf-8-sig'))"
      remedy = (
        f'run python -c "import json, sys; [print(json.dumps(row)) for row in'
        f' {rows}]" {old} > {new} and name {path}.jsonl, of format jsonl'
      )
    raise errors.UserError(
      f'{path or STDIN}: is one JSON array, not one object per line; {remedy}'
    )


def check_separator(
  line: str,
  columns: Sequence[tuple[int | str, ...]],
  where: str,
  remedy: str,
) -> None:
  """Raises a `UserError` if cells are quoted, or not separated by tabs.

  Args:
    line: first line of the table.
    columns: sets of column names or numbers; the line must have all columns of
      one set.
    where: file and line, for the error message.
    remedy: advice in the error message on how to read such a file.
  """
  if _has_columns(line.split('\t'), columns):
    return
  mark = find_separator(line, columns)
  if mark is None:
    return
  what = f'the columns are separated by {mark!r}, as in CSV, not by tabs'
  if mark == '\t':
    what = 'the cells are quoted, and a tab-separated file has no quoting here'
  raise errors.UserError(f'{where}: {what}; {remedy}')


def find_separator(
  text: str,
  columns: Sequence[tuple[int | str, ...]],
  marks: Sequence[str] = SEPARATORS,
) -> str | None:
  """Returns the separator of the cells of a CSV file; None if not found.

  Args:
    text: the beginning of the file, at least the first row.
    columns: sets of column names or numbers; the first row must have all
      columns of one set.
    marks: separators in the order in which they are tried.
  """
  for mark in marks:
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=mark)
    try:
      first = next(filter(None, reader), [])
    except csv.Error:
      continue
    if _has_columns(first, columns):
      return mark
  return None


def _has_columns(
  cells: Sequence[str], columns: Sequence[tuple[int | str, ...]]
) -> bool:
  return any(
    all(
      c in cells if isinstance(c, str) else -len(cells) <= c < len(cells)
      for c in wanted
    )
    for wanted in columns
  )
