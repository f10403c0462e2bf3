"""Tables, and how they are written: as HTML, Markdown or LaTeX."""

from collections.abc import Callable, Sequence
import html
from typing import NamedTuple

import markupsafe
import pandas as pd

from bam_jax import escape


class Cell(NamedTuple):
  """A table cell, with or without significance stars; bold if `is_best`."""

  text: str
  stars: str = ''
  is_best: bool = False


class Table(NamedTuple):
  """A table, independent of the output format.

  Attributes:
    name: identifies the table in HTML and LaTeX.
    title: says what the table shows.
    note: explains the table and its limits.
    header: for each column, a name, or a pair of a name and a metric.
    rows: for each row, one `Cell` or plain string per column.
    text_columns: number of text columns; these are the leftmost columns.
    latex_columns: indices of the columns that report.tex shows; empty if
      report.tex does not show the table.
  """

  name: str
  title: str
  note: str
  header: Sequence[str | tuple[str, str]]
  rows: Sequence[Sequence[str | Cell]]
  text_columns: int
  latex_columns: Sequence[int] = ()


def to_html(table: Table) -> markupsafe.Markup:
  """Returns the table as a `<table>` element."""

  def cell(value: Cell) -> str:
    text = html.escape(escape.plain(value.text))
    text = f'<b>{text}</b>' if value.is_best else text
    return f'{text}<sup>{value.stars}</sup>' if value.stars else text

  def name(text: str) -> str:
    # Allows line breaks after the underscores of a long name.
    return html.escape(text).replace('_', '_<wbr>')

  text = _frame(table, cell, name).to_html(
    index=False,
    escape=False,
    border=0,
    classes=[table.name, f'text-{table.text_columns}'],
  )
  return markupsafe.Markup(text)


def to_markdown(table: Table) -> str:
  """Returns the table as a Markdown table."""

  def cell(value: Cell) -> str:
    text = escape.markdown(value.text + value.stars)
    return f'**{text}**' if value.is_best else text

  header = [
    name if isinstance(name, str) else '{} ({})'.format(*name)
    for name in table.header
  ]
  header = [name.removesuffix(' ()') for name in header]
  numbers = len(header) - table.text_columns
  frame = _frame(table._replace(header=header), cell, escape.markdown)
  return frame.to_markdown(
    index=False,
    tablefmt='pipe',
    disable_numparse=True,
    colalign=['left'] * table.text_columns + ['right'] * numbers,
  )


def to_latex(table: Table, caption: str) -> str:
  """Returns the table's `latex_columns` as LaTeX, for the package booktabs."""
  columns = table.latex_columns
  # Each cell gets room for the most stars of its column: this aligns numbers.
  room = [
    max((len(_cell(value).stars) for value in column), default=0)
    for column in zip(*table.rows)
  ]

  def cell(value: str | Cell, room: int) -> str:
    value = _cell(value)
    text = escape.latex(value.text)
    text = rf'\textbf{{{text}}}' if value.is_best else text
    blank = '*' * (room - len(value.stars))
    raised = value.stars + (rf'\phantom{{{blank}}}' if blank else '')
    return f'{text}$^{{{raised}}}$' if raised else text

  shown = table._replace(
    header=[table.header[i] for i in columns],
    rows=[[cell(row[i], room[i]) for i in columns] for row in table.rows],
  )
  frame = _frame(shown, lambda c: c.text, escape.latex, r'\scriptsize ')
  numbers = len(columns) - table.text_columns
  tabular = frame.to_latex(
    index=False,
    escape=False,
    column_format='l' * table.text_columns + 'r' * numbers,
  )
  return rf"""\begin{{table*}}
\centering\small\setlength{{\tabcolsep}}{{3pt}}
{tabular}\caption{{{escape.latex(caption)}}}
\label{{tab:{table.name}}}
\end{{table*}}
"""


def _cell(value: str | Cell) -> Cell:
  return value if isinstance(value, Cell) else Cell(value)


def _frame(
  table: Table,
  cell: Callable[[Cell], str],
  name: Callable[[str], str],
  small: str = '',
) -> pd.DataFrame:
  """Formats a table as a frame; `small` is put before metrics in the header."""
  columns = [
    name(escape.plain(text)) for text in table.header if isinstance(text, str)
  ]
  if not columns:
    columns = pd.MultiIndex.from_tuples(
      (name(escape.plain(text)), small + name(what) if what else '')
      for text, what in table.header
    )
  rows = [[cell(_cell(value)) for value in row] for row in table.rows]
  # A name may be invalid Unicode, which only the dtype `object` can hold.
  return pd.DataFrame(rows, columns=columns, dtype=object)
