"""The report's tables, and how a table is written in each format.

A function in `TABLES` takes a `Report` and returns tables. Every format renders
the same `Table`, a DataFrame of cells, by pandas.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import html
from typing import NamedTuple

import pandas as pd

from bam_jax import config as config_lib
from bam_jax import escape
from bam_jax.reporting import comparisons
from bam_jax.reporting import curves as curves_lib
from bam_jax.reporting import statistics
from bam_jax.reporting import teaching
from bam_jax.reporting import words
from bam_jax.tasks import task as task_lib


class Report(NamedTuple):
  """What tables and plots are made of.

  Attributes:
    summary: what report.json holds.
    config: what was run.
    tasks: the tasks of the plan.
    curves: what the runs logged.
  """

  summary: Mapping[str, dict]
  config: config_lib.Config
  tasks: task_lib.TaskTable
  curves: curves_lib.Curves


class Cell(NamedTuple):
  """A number with marks.

  Attributes:
    text: the number as it is shown; may be empty.
    stars: to stand behind it.
    is_best: whether it is shown bold.
  """

  text: str
  stars: str = ''
  is_best: bool = False


class Table(NamedTuple):
  """A table in no format yet.

  Attributes:
    name: of its LaTeX label.
    title: what it shows.
    note: what a reader must know not to read too much into it.
    cells: a `Cell` or a plain string each. A column's name is a string, or a
      pair of a name and what it measures.
    text_columns: how many columns from the left are text; the others are
      numbers.
    latex_columns: indices of those in report.tex; none: it lacks the table.
  """

  name: str
  title: str
  note: str
  cells: pd.DataFrame
  text_columns: int
  latex_columns: Sequence[int] = ()


def to_html(table: Table) -> str:
  """The table as a `<table>` element."""

  def escaped(text: str) -> str:
    # A long name may break behind its underscores.
    return html.escape(escape.plain(text)).replace('_', '_<wbr>')

  def cell(value: str | Cell) -> str:
    text, stars, is_best = _cell(value)
    text = html.escape(escape.plain(text))
    text = f'<b>{text}</b>' if is_best else text
    return f'{text}<sup>{stars}</sup>' if stars else text

  return _with_columns(table.cells.map(cell), escaped).to_html(
    index=False,
    escape=False,
    border=0,
    classes=[table.name, f'text-{table.text_columns}'],
  )


def to_markdown(table: Table) -> str:
  """The table in Markdown with pipes."""

  def cell(value: str | Cell) -> str:
    text, stars, is_best = _cell(value)
    text = escape.markdown(text + stars)
    return f'**{text}**' if is_best else text

  def column(name: str | tuple[str, str]) -> str:
    if isinstance(name, str):
      return name
    return f'{name[0]} ({name[1]})' if name[1] else name[0]

  cells = table.cells.map(cell)
  cells.columns = [escape.markdown(column(name)) for name in cells.columns]
  numbers = len(cells.columns) - table.text_columns
  return cells.to_markdown(
    index=False,
    tablefmt='pipe',
    disable_numparse=True,
    colalign=['left'] * table.text_columns + ['right'] * numbers,
  )


def to_latex(table: Table, caption: str) -> str:
  """The table's `latex_columns` as a floating `table*`, by booktabs."""

  def column(cells: pd.Series) -> pd.Series:
    cells = cells.map(_cell)
    # Room for the most stars, so that numbers stand under one another.
    room = max((len(cell.stars) for cell in cells), default=0)
    return cells.map(lambda cell: _latex_cell(cell, room))

  cells = table.cells.iloc[:, list(table.latex_columns)].apply(column)
  numbers = len(cells.columns) - table.text_columns
  tabular = _with_columns(cells, escape.latex, r'\scriptsize ').to_latex(
    index=False,
    escape=False,
    column_format='l' * table.text_columns + 'r' * numbers,
  )
  return (
    r'\begin{table*}'
    '\n'
    r'\centering\small\setlength{\tabcolsep}{3pt}'
    f'\n{tabular}'
    rf'\caption{{{escape.latex(caption)}}}'
    '\n'
    rf'\label{{tab:{table.name}}}'
    '\n'
    r'\end{table*}'
    '\n'
  )


def _latex_cell(cell: Cell, room: int) -> str:
  """A number with raised stars, in front of the room for more of them."""
  text = escape.latex(cell.text)
  if cell.is_best:
    text = rf'\textbf{{{text}}}'
  blank = '*' * (room - len(cell.stars))
  raised = cell.stars + (rf'\phantom{{{blank}}}' if blank else '')
  return f'{text}$^{{{raised}}}$' if raised else text


def _cell(value: str | Cell) -> Cell:
  return value if isinstance(value, Cell) else Cell(value)


def _with_columns(
  cells: pd.DataFrame, escaped: Callable[[str], str], small: str = ''
) -> pd.DataFrame:
  """The cells under escaped names; `small` goes before what is measured."""
  if isinstance(cells.columns, pd.MultiIndex):
    cells.columns = pd.MultiIndex.from_tuples(
      (escaped(name), small + escaped(what) if what else '')
      for name, what in cells.columns
    )
  else:
    cells.columns = [escaped(name) for name in cells.columns]
  return cells


def _frame(header: Sequence, rows: Iterable[Sequence]) -> pd.DataFrame:
  """A frame of text; a header of pairs becomes one of two lines."""
  if isinstance(header[0], str):
    columns = [escape.plain(name) for name in header]
  else:
    columns = pd.MultiIndex.from_tuples(
      tuple(map(escape.plain, names)) for names in header
    )
  # Pandas would make columns of a cell's fields.
  frame = pd.DataFrame(index=range(len(rows := list(rows))), columns=columns)
  for place, values in enumerate(zip(*rows, strict=True)):
    frame.isetitem(place, pd.Series(list(values), dtype=object))
  return frame


def main_table(report: Report) -> Table:
  """Variants x tasks in the paper's metrics, averages and differences."""
  variants, tasks = report.summary['variants'], report.tasks
  tests = report.summary['comparisons']
  header = [('variant', '')]
  header += [(task.name, task.paper_metric) for task in tasks.tasks]
  header += [('average', 'paper'), ('average', 'GLUE')]
  in_latex = range(len(header) - 1)
  header += [(f'Δ {words.label(b)}', 'paper') for b in comparisons.BASELINES]
  columns = [*tasks.names, comparisons.AVERAGE, 'GLUE']
  values = {
    name: [
      *(
        variant['tasks'].get(t.name, {}).get(t.paper_metric)
        for t in tasks.tasks
      ),
      variant['average'],
      variant['glue_average'],
    ]
    for name, variant in variants.items()
  }
  rows = []
  for name, row in values.items():
    cells = []
    for place, (column, value) in enumerate(zip(columns, row)):
      others = [r[place] for r in values.values() if words.is_number(r[place])]
      is_best = words.is_number(value) and value == max(others) > min(others)
      test = tests.get(name, {}).get(column)
      # An absent median has no stars, though its other seeds were tested.
      stars = test['stars'] if test and words.is_number(value) else ''
      cells.append(Cell(words.number(value), stars, is_best))
    for baseline in comparisons.BASELINES:
      base = variants.get(baseline, {}).get('average')
      average = variants[name]['average']
      difference = None if None in (base, average) else average - base
      is_self = name == baseline
      cells.append('' if is_self else words.number(difference, '+z.1f'))
    rows.append([words.label(name), *cells])
  return Table('main', 'Scores', '', _frame(header, rows), 1, in_latex)


def against_baselines(report: Report) -> list[Table]:
  """The numbers behind the main table's stars."""
  rows, reasons = [], {}
  for variant, by_column in report.summary['comparisons'].items():
    for column, test in by_column.items():
      drawn = report.summary['bootstrap'][variant][column]
      reasons[drawn['reason']] = None
      shifts = [test['gains'][b]['shift'] for b in comparisons.BASELINES]
      rows.append(
        [
          words.label(variant),
          column,
          *(words.number(shift, '+z.1f') for shift in shifts),
          words.p_value(test['p_value']),
          words.p_value(test['corrected']),
          test['stars'] or test['reason'],
          words.p_value(drawn['p_value']),
          words.p_value(drawn['corrected']),
        ]
      )
  if not rows:
    return []
  header = ['variant', 'of']
  header += [f'shift, {words.label(b)}' for b in comparisons.BASELINES]
  header += ['p', 'p (Holm)', 'verdict', 'bootstrap p', 'bootstrap p (Holm)']
  note = (
    'Shift: the median difference of all pairs of seeds (Hodges-Lehmann). p:'
    ' the permutation test of the stars, of the two baselines the larger one.'
    ' Bootstrap p: that of medians, resampled over seeds and examples, which'
    ' the paper names; it errs too often where noise is of seeds alone, and no'
    ' star rests on it.'
  )
  why = '; '.join(reason for reason in reasons if reason)
  note += f' Where there is none: {why}.' if why else ''
  title = 'Better than Single and than Multi'
  return [Table('baselines', title, note, _frame(header, rows), 2)]


_PAIR_TITLES = {
  'multi_task': 'What multi-task training changes',
  'teachers': 'What teachers change',
  'ablations': 'Own variants against what they are like or start from',
  'study': 'Which tasks help {task}',
}


def of_pairs(report: Report) -> list[Table]:
  """One table for each of `pairs.tables`."""
  header = ['variant', 'against', 'of', 'seeds', 'median', 'shift']
  header += ['95% interval', 'superiority', 'p', 'p (Holm)', 'verdict']
  in_latex = 0, 1, 2, 4, 5, 6, 9
  found = []
  for place, table in enumerate(report.summary['pairs']):
    rows = []
    for row in table['rows']:
      effect = [''] * 6
      if row['variant'] != row['baseline']:
        effect = [
          Cell(words.number(row['shift'], '+z.1f'), row['stars']),
          words.interval(row['low'], row['high'], '+z.1f'),
          words.number(row['superiority'], '.2f'),
          words.p_value(row['p_value']),
          words.p_value(row['corrected']),
          row['stars'] or row['reason'],
        ]
      rows.append(
        [
          words.label(row['variant']),
          words.label(row['baseline']),
          row['column'],
          '/'.join(map(str, dict.fromkeys(row['seeds']))),
          words.number(row['medians'][0]),
          *effect,
        ]
      )
    note = (
      'p: Mann-Whitney U over seeds, two-sided, Holm-corrected over this table.'
      ' Shift: the median difference of all pairs of seeds (Hodges-Lehmann),'
      ' and superiority the share of them in which the variant is the higher'
      f' one, ties half. {_power(table)}'
    )
    is_own = table['kind'] in ('ablations', 'study')
    found.append(
      Table(
        f'{table["kind"]}-{place}',
        _PAIR_TITLES[table['kind']].format(task=table['task']),
        note,
        _frame(header, rows),
        3,
        in_latex if is_own else (),
      )
    )
  return found


def _power(table: Mapping) -> str:
  """The levels of the stars, or how many seeds it takes to have any."""
  tests = sum(row['p_value'] is not None for row in table['rows'])
  if any(
    row['reason'] != statistics.NOT_ENOUGH_SEEDS
    for row in table['rows']
    if row['variant'] != row['baseline']
  ):
    return words.LEVELS + '.'
  if not tests:
    return 'Nothing is tested: one seed, or undefined scores.'
  return (
    f'Not enough seeds for a star: {tests} tests at once need'
    f' {statistics.seeds_needed(tests, statistics.MANN_WHITNEY)} seeds.'
  )


# Name of a measure -> (its column, how it is written, the factor before that).
_QUALITY = {
  'accuracy': ('gold label', '.1f', 100),
  'confidence': ('confidence', '.1f', 100),
  'calibration_error': ('calibration error', '.1f', 100),
  'entropy': ('entropy (nats)', '.2f', 1),
  'mean_absolute_error': ('absolute error', '.3f', 1),
}


def of_teachers(report: Report) -> list[Table]:
  """How good teachers are and how alike, from `teaching.summarise`."""
  rows = []
  for task, found in report.summary['teachers'].items():
    # Without a record of quality there is the agreement of seeds, on dev.
    for split, measured in (found['quality'] or {'dev': {}}).items():
      same = found['agreement'] if split == 'dev' else None
      qualities = [
        words.number(
          measured[name] * factor if name in measured else None, form
        )
        for name, (_, form, factor) in _QUALITY.items()
      ]
      alike = words.number(None if same is None else 100 * same)
      rows.append([task, split, *qualities, alike])
  if not rows:
    return []
  header = ['task', 'rows', *(column for column, _, _ in _QUALITY.values())]
  note = (
    f'{words.label(teaching.TEACHER)}, medians over seeds. In percent: how'
    ' often the likeliest class is the gold label, its mean probability, the'
    ' expected calibration error, and how often two seeds predict the same'
    ' class, mean over pairs. The absolute error of scores is on 0 to 1.'
  )
  cells = _frame([*header, 'another seed'], rows)
  return [Table('teachers', 'Teachers', note, cells, 2)]


def over_seeds(report: Report) -> list[Table]:
  """Medians with intervals, means and deviations."""
  header = ['task', 'metric', 'variant', 'seeds', 'median', '95% interval']
  header += ['mean', 'standard deviation']
  rows = []
  for column in (*report.tasks.names, comparisons.AVERAGE):
    is_average = column == comparisons.AVERAGE
    metric = 'paper' if is_average else report.tasks[column].paper_metric
    for variant, by_column in report.summary['statistics'].items():
      if found := by_column.get(column):
        rows.append(
          [
            column,
            metric,
            words.label(variant),
            str(found['seeds']),
            words.number(found['median'], '.2f'),
            words.interval(found['low'], found['high'], '.2f'),
            words.number(found['mean'], '.2f'),
            words.number(found['deviation'], '.2f'),
          ]
        )
  note = (
    'The interval is of the median, over seeds: the percentile bootstrap. The'
    ' deviation is that of single seeds.'
  )
  return [Table('seeds', 'Scores over seeds', note, _frame(header, rows), 3)]


def all_metrics(report: Report) -> list[Table]:
  """Every metric on every dev split."""
  variants = report.summary['variants']
  rows = []
  for task in report.tasks.names:
    by_variant = [v['tasks'].get(task, {}) for v in variants.values()]
    for metric in dict.fromkeys(name for found in by_variant for name in found):
      numbers = [words.number(found.get(metric)) for found in by_variant]
      rows.append([task, metric, *numbers])
  header = ['task', 'metric', *map(words.label, variants)]
  note = 'Medians over seeds.'
  return [Table('metrics', 'Every metric', note, _frame(header, rows), 2)]


# The tables below the main one. To add one, write its function and add it here.
TABLES: tuple[Callable[[Report], list[Table]], ...] = (
  against_baselines,
  of_pairs,
  of_teachers,
  over_seeds,
  all_metrics,
)


def further_tables(report: Report) -> list[Table]:
  """All tables of the report but the main one."""
  return [table for function in TABLES for table in function(report)]
