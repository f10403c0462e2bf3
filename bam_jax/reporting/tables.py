"""Builds the report's tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from bam_jax import config as config_lib
from bam_jax.reporting import bootstrap
from bam_jax.reporting import classes
from bam_jax.reporting import comparisons
from bam_jax.reporting import curves as curves_lib
from bam_jax.reporting import statistics
from bam_jax.reporting import table_formats
from bam_jax.reporting import teaching
from bam_jax.reporting import words
from bam_jax.tasks import task as task_lib


class Report(NamedTuple):
  """Data for tables and plots; `summary` becomes report.json."""

  summary: Mapping[str, dict]
  config: config_lib.Config
  tasks: task_lib.TaskTable
  curves: curves_lib.Curves


def main_table(report: Report) -> table_formats.Table:
  """Returns the main table: scores of each variant by task, and averages."""
  variants, tasks = report.summary['variants'], report.tasks
  columns = [*tasks.names, comparisons.AVERAGE]
  header = [
    ('variant', ''),
    *((task.name, task.paper_metric) for task in tasks.tasks),
    *(('average', name) for name in words.averages(tasks)),
  ]
  rated = variants | report.summary['baselines']
  values = {
    name: [
      *(comparisons.score_of(entry, column, tasks) for column in columns),
      entry['glue_average'],
    ][: len(header) - 1]
    for name, entry in rated.items()
  }
  numbers = pd.DataFrame(values.values(), dtype=float)
  highest = numbers.max()
  is_best = (numbers == highest) & (highest > numbers.min())
  rows = []
  for (name, row), best in zip(values.items(), is_best.to_numpy()):
    cells = []
    for column, value, is_highest in zip((*columns, None), row, best):
      test = report.summary['comparisons'].get(name, {}).get(column)
      # A missing number gets no stars, even if some seeds could be tested.
      stars = test['stars'] if test and words.is_number(value) else ''
      is_weak = name in report.summary['weak'].get(column, ())
      text = words.number(value) + (words.WEAK if is_weak else '')
      cells.append(table_formats.Cell(text, stars, bool(is_highest)))
    rows.append([words.label(name), *cells])
  in_latex = range(1 + len(columns))
  return table_formats.Table('main', 'Scores', '', header, rows, 1, in_latex)


def verdict_table(report: Report) -> table_formats.Table:
  """Returns the table that says which model serves each task best."""
  found = report.summary['verdicts']
  rows = []
  for task, cell in found['tasks'].items():
    both = {found['student'], found['own']}
    best = {found[cell['verdict']]} if cell['verdict'] in found else both
    is_weak = best <= {*report.summary['weak'].get(task, ())}
    difference = words.number(cell['difference'], '+z.1f')
    half_width = words.number(cell['half_width'], '.1f')
    if difference == '+0.0' and half_width == '0.0':
      difference = 'none'
    elif cell['half_width'] is not None:
      difference += f' ± {half_width}'
    rows.append(
      [
        task,
        words.verdict(found, cell['verdict']) + words.WEAK * is_weak,
        difference,
        words.p_value(cell['corrected']),
        words.number(cell['examples'] or None, ',d'),
      ]
    )
  header = ['task', 'recommendation', 'difference', 'p (Holm)', 'dev examples']
  note = words.about_verdicts(found) if rows else ''
  title = words.text('verdicts.title')
  return table_formats.Table('verdicts', title, note, header, rows, 2)


def baseline_table(report: Report) -> Iterator[table_formats.Table]:
  """Yields the table of the tests behind the stars, if anything is tested."""
  rows, reasons, is_tested = [], [], False
  for variant, by_column in report.summary['comparisons'].items():
    for column, test in by_column.items():
      is_tested |= test['p_value'] is not None
      others = [
        report.summary[key][variant][column]
        for key in ('over_examples', 'bootstrap')
      ]
      reasons += [other['reason'] for other in others]
      rows.append(
        [
          words.label(variant),
          column,
          *(words.number(x, '+z.1f') for x in test['shifts'].values()),
          words.p_value(test['corrected']),
          test['stars'] or test['reason'],
          *(words.p_value(other['corrected']) for other in others),
        ]
      )
  header = ['variant', 'task']
  header += [f'shift, {words.label(b)}' for b in comparisons.BASELINES]
  header += ['p, other seeds', 'verdict', 'p, other examples too']
  header += ["p, paper's bootstrap"]
  untested = ''
  if why := words.first_of(reasons):
    untested = words.text('baselines.untested', why=why)
  if is_tested:
    yield _make_table(
      *('baselines', header, rows, 2),
      rates=bootstrap.ERROR_RATES,
      interval_rates=bootstrap.INTERVAL_RATES,
      untested=untested,
    )


def pair_tables(report: Report) -> Iterator[table_formats.Table]:
  """Yields one table per entry of `summary['pairs']`.

  A table without any test, for example with one seed, is left out unless it is
  about custom variants.
  """
  header = ['variant', 'against', 'task', 'seeds', 'median', 'shift']
  header += ['95% interval', 'p', 'p (Holm)', 'verdict']
  for place, table in enumerate(report.summary['pairs']):
    is_own = table['kind'] in ('ablations', 'study')
    is_tested = any(row['p_value'] is not None for row in table['rows'])
    if not is_own and not is_tested:
      continue
    rows = []
    for row in table['rows']:
      effect = [''] * 5
      if row['variant'] != row['baseline']:
        effect = [
          table_formats.Cell(words.number(row['shift'], '+z.1f'), row['stars']),
          words.interval(row['low'], row['high'], '+z.1f'),
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
    shown = len(header) if is_tested else header.index('95% interval')
    yield table_formats.Table(
      f'{table["kind"]}-{place}',
      words.pair_title(table),
      words.text('pairs.note', power=_power(table['rows'])),
      header[:shown],
      [row[:shown] for row in rows],
      3,
      [i for i in (0, 1, 2, 4, 5, 6, 8) if i < shown] if is_own else (),
    )


def _make_table(
  name: str,
  header: Sequence[str],
  rows: Sequence[Sequence[str]],
  text_columns: int,
  **values: str,
) -> table_formats.Table:
  """Returns a table with its title and note from texts.toml."""
  title = words.text(f'{name}.title', **values)
  note = words.text(f'{name}.note', **values)
  return table_formats.Table(name, title, note, header, rows, text_columns)


def _power(rows: Sequence[Mapping]) -> str:
  reasons = {r['reason'] for r in rows if r['variant'] != r['baseline']}
  if reasons != {statistics.NOT_ENOUGH_SEEDS}:
    return words.LEVELS + '.'
  tests = sum(row['p_value'] is not None for row in rows)
  if not tests:
    return words.text('pairs.no_test')
  return words.describe_power(tests, statistics.MANN_WHITNEY)


_QUALITY: words.Columns = {
  'accuracy': ('accuracy', '.1f', 100),
  'confidence': ('confidence', '.1f', 100),
  'calibration_error': ('calibration error', '.1f', 100),
  'entropy': ('entropy (nats)', '.2f', 1),
  'mean_absolute_error': ('absolute error', '.3f', 1),
}


def teacher_table(report: Report) -> Iterator[table_formats.Table]:
  """Yields the table of teachers: their quality, and how often seeds agree."""
  rows = []
  for task, found in report.summary['teachers'].items():
    # If no quality is recorded, the row for dev shows the agreement of seeds.
    for split, measured in (found['quality'] or {'dev': {}}).items():
      same = found['agreement'] if split == 'dev' else None
      agreement = words.number(None if same is None else 100 * same)
      rows.append([task, split, *words.numbers(measured, _QUALITY), agreement])
  header = ['task', 'split', *words.names(_QUALITY), 'seed agreement']
  teacher = words.label(teaching.TEACHER)
  yield _make_table('teachers', header, rows, 2, teacher=teacher)


def seed_table(report: Report) -> Iterator[table_formats.Table]:
  """Yields the table of medians, intervals, means and standard deviations."""
  header = ['task', 'metric', 'variant', 'seeds', 'median', 'interval']
  header += ['mean', 'standard deviation']
  metrics = {task.name: task.paper_metric for task in report.tasks.tasks}
  rows = [
    [
      column,
      metric,
      words.label(variant),
      str(found['seeds']),
      words.number(found['median'], '.2f'),
      words.median_interval(found),
      words.number(found['mean'], '.2f'),
      words.number(found['deviation'], '.2f'),
    ]
    for column, metric in {
      **metrics,
      comparisons.AVERAGE: words.averages(report.tasks)[0],
    }.items()
    for variant, by_column in report.summary['statistics'].items()
    if (found := by_column.get(column))
  ]
  if any(row[3] != '1' for row in rows):
    yield _make_table('seeds', header, rows, 3)


def metric_table(report: Report) -> Iterator[table_formats.Table]:
  """Yields the table of every metric on every dev split."""
  variants = report.summary['variants'] | report.summary['baselines']
  rows = []
  for task in report.tasks.names:
    by_variant = [v['tasks'].get(task, {}) for v in variants.values()]
    for metric in dict.fromkeys(name for found in by_variant for name in found):
      numbers = [words.number(found.get(metric)) for found in by_variant]
      rows.append([task, metric, *numbers])
  header = ['task', 'metric', *map(words.label, variants)]
  yield _make_table('metrics', header, rows, 2)


def class_table(report: Report) -> Iterator[table_formats.Table]:
  """Yields the table of precision, recall and F1 of each class or label."""
  variants, rows = report.summary['variants'], []
  for task, by_variant in report.summary['classes'].items():
    for label, first in next(iter(by_variant.values())).items():
      own = {variant: of[label] for variant, of in by_variant.items()}
      for measure in classes.MEASURES:
        found = [own.get(variant, {}).get(measure) for variant in variants]
        count = words.number(first['rows'], ',.0f')
        rows.append([task, label, measure, count, *map(words.number, found)])
  header = ['task', 'class', 'measure', 'rows', *map(words.label, variants)]
  yield _make_table('classes', header, rows, 3)


_DECISIONS: words.Columns = {
  'calibration_error': ('calibration error', '.1f', 100),
  'calibrated_error': ('with temperature', '.1f', 100),
  'temperature': ('temperature', '.2f', 1),
  'default_score': ('score at 1/2', '.1f', 1),
  'threshold_score': ('with threshold', '.1f', 1),
  'threshold': ('threshold', '.3f', 1),
}


def decision_table(report: Report) -> Iterator[table_formats.Table]:
  """Yields the table of fitted temperatures and decision thresholds."""
  rows = [
    [task, words.label(variant), *words.numbers(found, _DECISIONS)]
    for task, by_variant in report.summary['decisions'].items()
    for variant, found in by_variant.items()
  ]
  header = ['task', 'variant', *words.names(_DECISIONS)]
  chosen = ', '.join(report.config.decisions.thresholds) or words.NOTHING
  yield _make_table('decisions', header, rows, 2, thresholds=chosen)


# The tables below the main one. To add one, write its function and add it here;
# its title and note are in texts.toml.
TABLES: tuple[Callable[[Report], Iterator[table_formats.Table]], ...] = (
  baseline_table,
  pair_tables,
  teacher_table,
  seed_table,
  metric_table,
  class_table,
  decision_table,
)


def further_tables(report: Report) -> list[table_formats.Table]:
  """Returns all tables with rows, except the main one."""
  tables = (table for function in TABLES for table in function(report))
  return [table for table in tables if table.rows]
