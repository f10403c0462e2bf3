"""Parses cells and numbers by the rules of data files, not those of Python.

Python's `split()`, `strip()`, `isdecimal()`, `float()` and `int()` accept all
of Unicode and Python's own literals. In data files, a no-break space is part of
a word, and `1_0`, `١٢`, ` 1` and `nan` are not numbers.
"""

import re

# The only characters that separate words and surround names.
BLANKS = ' \t'

_INTEGER = re.compile(r'[+-]?[0-9]+')
_NUMBER = re.compile(r'[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?')
# Names of files of rows whose suffix gives the format, compressed or not.
_ROW_FILE = re.compile(r'.+\.(tsv|csv|jsonl|parquet)(\.(gz|bz2|xz|zst))?')
_GAP = re.compile(f'[{BLANKS}]+')
_BREAK = re.compile(f'[{BLANKS}\r\n]+')


def cells(line: str) -> list[str]:
  r"""Splits a line at tabs, or at spaces if it has no tab.

  >>> cells('Mme\u00a0Curie  B-PER '), cells('a b\t\tO'), cells(' ')
  (['Mme\xa0Curie', 'B-PER'], ['a b', '', 'O'], [])
  """
  if '\t' in line:
    return line.split('\t')
  return [cell for cell in _GAP.split(line) if cell]


def is_blank(line: str) -> bool:
  """Whether a line holds only spaces and tabs."""
  return not line.strip(BLANKS)


def one_line(text: str) -> str:
  r"""Joins the lines of a text, with one space between words.

  Only spaces, tabs and line breaks separate words.

  >>> one_line(' 5\u00a0000\r\n\tfrancs ')
  '5\xa0000 francs'
  """
  return _BREAK.sub(' ', text).strip(' ')


def parse_number(text: str) -> float:
  """Parses a decimal number, such as `3`, `-0.5` or `1e-3`.

  Raises:
    ValueError: the text is not such a number.
  """
  if not _NUMBER.fullmatch(text):
    raise ValueError(f'{text!r} is not a decimal number')
  return float(text)


def parse_integer(text: str) -> int:
  """Parses a whole number, such as `3` or `-1`.

  Raises:
    ValueError: the text is not a whole number, or has more digits than Python
      accepts.
  """
  if not _INTEGER.fullmatch(text):
    raise ValueError(f'{text!r} is not a whole number')
  return int(text)


def is_index(text: str) -> bool:
  """Whether a text is a whole number without a sign."""
  return text.isascii() and text.isdecimal()


def format_of(file: str) -> str | None:
  """Returns the format of a file of rows by its suffix; None if unknown.

  >>> format_of('more.csv.gz'), format_of('more.txt')
  ('csv', None)
  """
  found = _ROW_FILE.fullmatch(file)
  return found[1] if found else None
