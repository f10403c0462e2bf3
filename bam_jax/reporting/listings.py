"""The report's further tables, as words, whatever they are written in."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from bam_jax.reporting import comparisons
from bam_jax.reporting import figures
from bam_jax.reporting import pairs
from bam_jax.reporting import statistics
from bam_jax.reporting import tables
from bam_jax.reporting import teaching
from bam_jax.tasks import task as task_lib


class Listing(NamedTuple):
  """A table of plain cells.

  Attributes:
    title: what it shows.
    note: what must be said for it not to say too much.
    header: a name a column.
    rows: of as many cells.
    words: how many columns, from the left, are words; the others are numbers.
  """

  title: str
  note: str
  header: Sequence[str]
  rows: Sequence[Sequence[str]]
  words: int


_TITLES = {
  'multi_task': 'What multi-task training changes',
  'teachers': 'What teachers change',
  'ablations': 'Own variants against what they are like or start from',
  'study': 'Which tasks help {task}',
}


def of_pairs(table: Mapping) -> Listing:
  """One of `pairs.tables`."""
  header = ['variant', 'against', 'of', 'seeds', 'median', 'shift']
  header += ['95% interval', 'superiority', 'p', 'p (Holm)', 'verdict']
  rows = [
    [
      figures.label(row['variant']),
      figures.label(row['baseline']),
      row['column'],
      '/'.join(map(str, dict.fromkeys(row['seeds']))),
      tables.number(row['medians'][0]),
      *_effect(row),
    ]
    for row in table['rows']
  ]
  note = (
    'p: Mann-Whitney U over seeds, two-sided, Holm-corrected over this table.'
    ' Shift: the median difference of all pairs of seeds (Hodges-Lehmann), and'
    ' superiority the share of them in which the variant is the higher one,'
    f' ties half. {_power(table)}'
  )
  title = _TITLES[table['kind']].format(task=table['task'])
  return Listing(title, note, header, rows, words=3)


def _effect(row: Mapping) -> list[str]:
  """From `shift` to what may be claimed."""
  if row['variant'] == row['baseline']:
    return [''] * 6
  interval = tables.NOTHING
  if row['low'] is not None:
    low, high = (tables.number(row[key], '+z.1f') for key in ('low', 'high'))
    interval = f'{low} to {high}'
  return [
    tables.number(row['shift'], '+z.1f'),
    interval,
    tables.number(row['superiority'], '.2f'),
    tables.p_value(row['p_value']),
    tables.p_value(row['corrected']),
    row['stars'] or row['reason'],
  ]


def _power(table: Mapping) -> str:
  """How many seeds stars take, where none can be."""
  tests = sum(row['p_value'] is not None for row in table['rows'])
  if any(
    row['reason'] != statistics.NOT_ENOUGH_SEEDS
    for row in table['rows']
    if row['variant'] != row['baseline']
  ):
    return tables.LEVELS + '.'
  if not tests:
    return 'Nothing is tested: one seed, or undefined scores.'
  return (
    f'Not enough seeds for a star: {tests} tests at once need'
    f' {pairs.seeds_needed(tests)} seeds.'
  )


def statistics_of(
  summaries: Mapping[str, Mapping[str, Mapping]], tasks: task_lib.TaskTable
) -> Listing:
  """What `report.json` has under `statistics`."""
  header = ['task', 'metric', 'variant', 'seeds', 'median', '95% interval']
  header += ['mean', 'standard deviation']
  rows = []
  for column in (*tasks.names, comparisons.AVERAGE):
    is_average = column == comparisons.AVERAGE
    metric = 'paper' if is_average else tasks[column].paper_metric
    for variant, of_variant in summaries.items():
      if column not in of_variant:
        continue
      found = of_variant[column]
      interval = tables.NOTHING
      if found['low'] is not None:
        interval = ' to '.join(
          tables.number(found[key], '.2f') for key in ('low', 'high')
        )
      rows.append(
        [
          column,
          metric,
          figures.label(variant),
          str(found['seeds']),
          tables.number(found['median'], '.2f'),
          interval,
          tables.number(found['mean'], '.2f'),
          tables.number(found['deviation'], '.2f'),
        ]
      )
  note = (
    'The interval is of the median, over seeds: the percentile bootstrap. The'
    ' deviation is that of single seeds.'
  )
  return Listing('Scores over seeds', note, header, rows, words=3)


def against_baselines(
  tests: Mapping[str, Mapping[str, Mapping]],
  bootstrap: Mapping[str, Mapping[str, Mapping]],
) -> Listing | None:
  """The numbers behind the main table's stars; None without a test."""
  rows, reasons = [], {}
  for variant, by_column in tests.items():
    for column, test in by_column.items():
      drawn = bootstrap[variant][column]
      reasons[drawn['reason']] = None
      rows.append(
        [
          figures.label(variant),
          column,
          *(
            tables.number(test['gains'][baseline]['shift'], '+z.1f')
            for baseline in comparisons.BASELINES
          ),
          tables.p_value(test['p_value']),
          tables.p_value(test['corrected']),
          test['stars'] or test['reason'],
          tables.p_value(drawn['p_value']),
          tables.p_value(drawn['corrected']),
        ]
      )
  if not rows:
    return None
  header = ['variant', 'of']
  header += [f'shift, {figures.label(b)}' for b in comparisons.BASELINES]
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
  return Listing('Better than Single and than Multi', note, header, rows, 2)


# Name of a measure -> (its column, how it is written, times what).
_QUALITY = {
  'accuracy': ('gold label', '.1f', 100),
  'confidence': ('confidence', '.1f', 100),
  'calibration_error': ('calibration error', '.1f', 100),
  'entropy': ('entropy (nats)', '.2f', 1),
  'mean_absolute_error': ('absolute error', '.3f', 1),
}


def of_teachers(teachers: Mapping[str, Mapping]) -> Listing | None:
  """What `teaching.summarise` found; None if nothing."""
  rows = []
  for task, found in teachers.items():
    # Without a record of quality there is how alike the seeds are, on dev.
    for split, measured in (found['quality'] or {'dev': {}}).items():
      same = found['agreement'] if split == 'dev' else None
      rows.append(
        [
          task,
          split,
          *(
            tables.number(
              measured[name] * factor if name in measured else None, form
            )
            for name, (_, form, factor) in _QUALITY.items()
          ),
          tables.number(None if same is None else 100 * same),
        ]
      )
  if not rows:
    return None
  header = ['task', 'rows', *(column for column, _, _ in _QUALITY.values())]
  header.append('another seed')
  note = (
    f'{figures.label(teaching.TEACHER)}, medians over seeds. In percent: how'
    ' often the likeliest class is the gold label, its mean probability, the'
    ' expected calibration error, and how often two seeds predict the same'
    ' class, mean over pairs. The absolute error of scores is on 0 to 1.'
  )
  return Listing('Teachers', note, header, rows, words=2)


def everything(
  summary: Mapping[str, object], tasks: task_lib.TaskTable
) -> list[Listing]:
  """All tables of a report but its main one and that of every metric."""
  found = [against_baselines(summary['comparisons'], summary['bootstrap'])]
  found += [of_pairs(table) for table in summary['pairs']]
  found.append(of_teachers(summary['teachers']))
  found.append(statistics_of(summary['statistics'], tasks))
  return [listing for listing in found if listing]
