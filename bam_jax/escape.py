"""Escapes users' text for TSV, CSV, Markdown and LaTeX files.

Labels, names, notes and texts may hold any characters. jinja2 and matplotlib
escape HTML, and `json` escapes JSON. Each other format has one function here.
"""

from collections.abc import Iterable
import html
import re
import unicodedata

# Control characters, line and paragraph separators, unpaired surrogates.
_UNPRINTABLE = frozenset({'Cc', 'Zl', 'Zp', 'Cs'})

# First characters that make a spreadsheet read a cell as a formula.
_FORMULA = re.compile(r'[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]')

_MARKDOWN = re.compile(
  r'[\\`*|~$]'
  r'|(?<![^\W_])_|_(?![^\W_])'  # an underscore inside a word is literal
  r'|\](?=[(\[:])'  # a bracket that would end the text of a link
)

_LATEX = {
  '\\': r'\textbackslash{}',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '<': r'$<$',
  '>': r'$>$',
  '→': r'$\to$',
  'λ': r'$\lambda$',
  'Δ': r'$\Delta$',
  '†': r'$\dagger$',
  '\N{MINUS SIGN}': r'$-$',
  '—': '--',
  '|': r'\textbar{}',
  **{letter: f'\\{letter}' for letter in '{}$&#%_'},
}


def plain(text: object) -> str:
  r"""Returns text on one line, with control characters escaped.

  >>> plain('a\tb\x1b[2J')
  'a\\tb\\x1b[2J'
  """
  return ''.join(
    c.encode('unicode_escape').decode()
    if unicodedata.category(c) in _UNPRINTABLE
    else c
    for c in str(text)
  )


def tsv(fields: Iterable[object]) -> str:
  r"""Returns a TSV row without a line break; a tab in a field becomes `\t`."""
  return '\t'.join(map(plain, fields))


def csv(field: object) -> str:
  """Returns a CSV field that no spreadsheet reads as a formula.

  >>> csv('=1+1')
  "'=1+1"
  """
  text = str(field)
  return plain(f"'{text}" if _FORMULA.match(text) else text)


def markdown(text: object) -> str:
  r"""Escapes text for a line or a table cell of Markdown.

  >>> markdown('a_b *c* | [d](e) <f>')
  'a_b \\*c\\* \\| [d\\](e) &lt;f&gt;'
  """
  line = html.escape(plain(one_line(text)), quote=False)
  return _MARKDOWN.sub(lambda found: f'\\{found[0]}', line)


def paragraph(text: object) -> str:
  r"""Escapes text for a Markdown paragraph.

  Characters that would begin a heading or a list are escaped too.

  >>> paragraph('# 1'), paragraph('12. a')
  ('\\# 1', '12\\. a')
  """
  return re.sub(r'^(\d*)([#+=\[.)-])', r'\1\\\2', markdown(text))


def code(text: object) -> str:
  """Returns text as a Markdown code span, between backquotes.

  >>> code('a`b')
  '``a`b``'
  """
  line = plain(text)
  fence = '`' * (1 + max(map(len, re.findall('`+', line)), default=0))
  # Markdown removes one space from each end.
  edge = ' ' if line.strip(' `') != line or not line else ''
  return f'{fence}{edge}{line}{edge}{fence}'


def latex(text: object) -> str:
  """Escapes text for LaTeX, on one line."""
  line = plain(one_line(text))
  # At the start of a table row, LaTeX would read these as an option.
  start = '{}' if line[:1] in ('[', '*') else ''
  return start + ''.join(_LATEX.get(letter, letter) for letter in line)


def one_line(text: object) -> str:
  r"""Replaces each sequence of white space by one space.

  >>> one_line('not found:\n  a.json ')
  'not found: a.json'
  """
  return ' '.join(str(text).split())
