r"""The report's tables for a paper: report.tex, to be \input."""

from collections.abc import Mapping
from collections.abc import Sequence

from bam_jax import config as config_lib
from bam_jax import escape
from bam_jax.reporting import figures
from bam_jax.reporting import listings
from bam_jax.reporting import tables
from bam_jax.tasks import task as task_lib

_HEAD = r"""% Written by BAM-JAX. In a paper: \usepackage{booktabs}, then
% \input{report}; what is not wanted can be cut out.
"""


def document(
  summary: Mapping[str, object],
  config: config_lib.Config,
  tasks: task_lib.TaskTable,
) -> str:
  """The main table, and those of own variants and of sets of tasks.

  Args:
    summary: what report.json holds.
    config: what was run.
    tasks: the tasks of the plan.
  """
  parts = [_HEAD, _main(summary, config, tasks)]
  parts += [
    _pairs(table, number)
    for number, table in enumerate(summary['pairs'])
    if table['kind'] in ('ablations', 'study')
  ]
  return '\n'.join(parts)


def _main(
  summary: Mapping[str, object],
  config: config_lib.Config,
  tasks: task_lib.TaskTable,
) -> str:
  """Variants x tasks and the paper's average."""
  variants, tests = summary['variants'], summary['comparisons']
  whole = tables.table(variants, tasks, tests)
  columns = len(tasks) + 1
  header = [('', ''), *whole.header[:columns]]
  names, metrics = (
    [escape.latex(part) for part in row] for row in zip(*header, strict=True)
  )
  lines = [' & '.join(names), r' & \scriptsize '.join(metrics)]
  # [columns] the most stars of each: figures stand under one another.
  rooms = [
    max(len(cell.stars) for cell in cells)
    for cells in zip(*(cells[:columns] for _, cells in whole.rows))
  ]
  rows = [
    [
      escape.latex(figures.label(name)),
      *(_cell(cell, room) for cell, room in zip(cells, rooms)),
    ]
    for name, cells in whole.rows
  ]
  said = [
    text
    for text in tables.remarks(
      variants, config, tasks, tests, summary['undefined']
    )
    if not text.startswith('Average (GLUE)')  # a column left out here
  ]
  said += [
    f'{name.capitalize()}: {summary["notes"][name]}'
    for name in ('note', 'pretrained weights', 'trained on')
    if name in summary['notes']
  ]
  caption = ' '.join(
    text if text.endswith('.') else f'{text}.' for text in said
  )
  return _table('l' + 'r' * columns, lines, rows, caption, 'main')


def _pairs(table: Mapping, number: int) -> str:
  """A table of pairs, in fewer columns than the page's."""
  listing = listings.of_pairs(table)
  header = ['variant', 'against', 'of', 'median', 'shift', '95% interval']
  header.append('p (Holm)')
  places = [listing.header.index(name) for name in header]
  rows = []
  for cells, row in zip(listing.rows, table['rows'], strict=True):
    words = [escape.latex(cells[place]) for place in places]
    words[header.index('shift')] += _superscript(row['stars'])
    rows.append(words)
  return _table(
    'lllrrrr',
    [' & '.join(map(escape.latex, header))],
    rows,
    f'{listing.title}. {listing.note}',
    f'{table["kind"]}-{number}',
  )


def _table(
  columns: str,
  header: Sequence[str],
  rows: Sequence[Sequence[str]],
  caption: str,
  label: str,
) -> str:
  """A `table*`; header and rows are escaped already, the caption is not."""
  lines = [
    r'\begin{table*}',
    r'\centering\small\setlength{\tabcolsep}{3pt}',
    rf'\begin{{tabular}}{{{columns}}}',
    r'\toprule',
    *(rf'{line} \\' for line in header),
    r'\midrule',
    *(rf'{" & ".join(row)} \\' for row in rows),
    r'\bottomrule',
    r'\end{tabular}',
    rf'\caption{{{escape.latex(caption)}}}',
    rf'\label{{tab:{label}}}',
    r'\end{table*}',
  ]
  return '\n'.join(lines) + '\n'


def _cell(cell: tables.Cell, room: int) -> str:
  """A number of the main table, its stars raised; there is room for some."""
  shown = escape.latex(cell.number)
  if cell.is_best:
    shown = rf'\textbf{{{shown}}}'
  blank = '*' * (room - len(cell.stars))
  return shown + _superscript(cell.stars + (blank and rf'\phantom{{{blank}}}'))


def _superscript(stars: str) -> str:
  return f'$^{{{stars}}}$' if stars else ''
