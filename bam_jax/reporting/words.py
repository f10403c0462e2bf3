"""The sentences of the report, and how it writes names and numbers."""

from collections.abc import Mapping, Sequence
import math

from bam_jax import config as config_lib
from bam_jax import schema
from bam_jax import variants as variants_lib
from bam_jax.reporting import statistics
from bam_jax.reporting import verdicts
from bam_jax.tasks import task as task_lib

_PAPER_SEEDS = 20
BASELINES_TITLE = 'Better than Single and than Multi'
_PAIR_TITLES = {
  'multi_task': 'What multi-task training changes',
  'teachers': 'What teachers change',
  'searched': 'Against searched settings',
  'ablations': 'Own variants against what they are like or start from',
  'study': 'Which tasks help {task}',
}
NOTHING = '—'
# Marks a variant that is no better than the majority class.
WEAK = '†'
UNDEFINED = 'undefined'
# The p-values that the stars stand for.
LEVELS = ', '.join(
  f'{stars} p < {str(level).lstrip("0")}'
  for stars, level in reversed(statistics.STARS)
)
_LABELS = {
  'single': 'Single',
  'single_searched': 'Single, searched',
  'multi': 'Multi',
  'multi_searched': 'Multi, searched',
  'single_to_single': 'Single→Single',
  'multi_to_multi': 'Multi→Multi',
  'single_to_multi': 'Single→Multi',
  'majority': 'Majority',
  'frozen_encoder': 'Frozen encoder',
}


def label(variant: str) -> str:
  """Returns a variant's name in the report."""
  return _LABELS.get(variant, variant.replace('_', ' '))


def is_number(value: float | None) -> bool:
  """Returns whether a score exists and is defined."""
  return value is not None and not math.isnan(value)


def number(
  value: float | None, form: str = '.1f', absent: str = NOTHING
) -> str:
  """Formats a score or a difference; nan is `undefined` and None `absent`."""
  if value is None:
    return absent
  if math.isnan(value):
    return UNDEFINED
  return format(value, form).replace('-', '\N{MINUS SIGN}')


def interval(low: float | None, high: float | None, form: str) -> str:
  """Formats an interval; a dash if there is none."""
  if low is None:
    return NOTHING
  return f'{number(low, form)} to {number(high, form)}'


def median_interval(found: Mapping[str, float | None]) -> str:
  """Formats the interval of a median; with its coverage if below 95%."""
  text = interval(found['low'], found['high'], '.2f')
  if found['low'] is None or found['coverage'] >= 0.95:
    return text
  return f'{text} ({found["coverage"]:.0%})'


def p_value(value: float | None) -> str:
  """Formats a p-value with three digits, without the zero before the point."""
  if value is None:
    return NOTHING
  return '<.001' if value < 0.001 else f'{value:.3f}'.removeprefix('0')


def p_sentence(value: float) -> str:
  """Formats a p-value within a sentence, such as `p < .001` or `p = .021`."""
  text = p_value(value)
  return f'p < {text[1:]}' if text.startswith('<') else f'p = {text}'


def headline(summary: Mapping[str, dict]) -> list[str]:
  """Returns the first sentences: the averages, and what serves each task."""
  found = summary['verdicts']
  if not found['averages']:
    sentences = [_highest_average(summary['variants'])]
  else:
    against = [_against(found, name) for name in found['averages']]
    average = summary['variants'][found['student']]['average']
    sentences = [
      f'On average {_student(found)} ({number(average, absent="incomplete")})'
      f' is {" and ".join(against)}.'
    ]
  sentences += _untrained(summary)
  if found['tasks']:
    sentences.append(_serve(found))
  cells = [*found['averages'].values(), *found['tasks'].values()]
  over = {cell['over'] for cell in cells}
  if verdicts.EXAMPLES in over:
    sentences.append(
      'With one seed the tests are over dev examples alone: another seed may'
      ' decide otherwise.'
    )
  if verdicts.SEEDS in over:
    sentences.append(
      'Without dev outputs the tests are over seeds alone: other dev examples'
      ' may decide otherwise.'
    )
  return sentences


def _student(found: Mapping[str, object]) -> str:
  """Returns the label of the student of `verdicts.summarise`."""
  name = label(found['student'])
  return f'the student {name}' if found['is_taught'] else name


def _against(found: Mapping[str, object], baseline: str) -> str:
  """Compares the student's average with that of one variant."""
  cell = found['averages'][baseline]
  difference = 'not comparable with'
  if is_number(cell['difference']):
    side = 'below' if cell['difference'] < 0 else 'above'
    difference = f'{number(abs(cell["difference"]))} {side}'
    if difference.startswith('0.0'):
      difference = 'level with'
  if cell['corrected'] is None:
    test = ': '.join(filter(None, ('not tested', cell['reason'])))
  else:
    test = p_sentence(cell['corrected'])
    test += ', no difference shown' * (cell['verdict'] == 'no difference')
  if baseline == found['teacher']:
    return f'{difference} its teachers ({label(baseline)}; {test})'
  return f'{difference} {label(baseline)} ({test})'


def verdict(found: Mapping[str, object], cell: Mapping[str, object]) -> str:
  """Says which model serves a task best."""
  student = 'the student' if found['is_taught'] else label(found['student'])
  return {
    'student': f'serve {student}',
    'own': 'serve its own model',
    'no difference': 'no difference shown',
    'not tested': 'not tested',
  }[cell['verdict']]


def _serve(found: Mapping[str, Mapping]) -> str:
  """Lists the tasks by what serves them best."""
  tasks: dict[str, list[str]] = {}
  for order in ('student', 'own', 'no difference', 'not tested'):
    for task, cell in found['tasks'].items():
      if cell['verdict'] == order:
        tasks.setdefault(verdict(found, cell), []).append(task)
  text = '; '.join(
    f'{what} for {", ".join(names)}' for what, names in tasks.items()
  )
  return f'{text[0].upper()}{text[1:]}.'


def about_verdicts(found: Mapping[str, Mapping]) -> str:
  """Explains the table of verdicts and the test behind it."""
  over: dict[str, list[str]] = {}
  for task, cell in found['tasks'].items():
    if cell['over']:
      over.setdefault(cell['over'], []).append(task)
  tests = []
  for what, names in over.items():
    which = f' ({", ".join(names)})' if len(over) > 1 else ''
    tests.append(f'over {what}{which}')
  text = (
    f'Difference: mean score of {label(found["student"])}, minus that of'
    f' {label(found["own"])}.'
  )
  if tests:
    text += (
      ' ±: half of its 95% interval; the data would not show a smaller one. p:'
      f' two-sided t-test {" and ".join(tests)}, corrected over the tasks, as ±'
      ' is not.'
    )
  why = first_of([cell['reason'] for cell in found['tasks'].values()])
  return f'{text} Not tested, or not over examples: {why}.' if why else text


def first_of(reasons: Sequence[str]) -> str:
  """Returns the first reason and how many others there are; may be empty."""
  found = list(dict.fromkeys(filter(None, reasons)))
  others = f' (and {len(found) - 1} more)' if len(found) > 1 else ''
  return f'{found[0]}{others}' if found else ''


def _highest_average(variants: Mapping[str, dict]) -> str:
  """Returns a sentence on the best average."""
  found = {name: variant['average'] for name, variant in variants.items()}
  averages = {name: value for name, value in found.items() if is_number(value)}
  is_undefined = any(v is not None and math.isnan(v) for v in found.values())
  if not averages:
    return (
      f'No variant has {"a defined" if is_undefined else "an"} average yet.'
    )
  best = max(averages, key=averages.get)
  of = '' if len(averages) == len(variants) else ' of the complete variants'
  of = ' of the variants that have one' if is_undefined else of
  return f'Highest average{of}: {label(best)}, {averages[best]:.1f}.'


def _untrained(summary: Mapping[str, dict]) -> list[str]:
  """Says where no variant is better than the majority or a frozen encoder."""
  return [
    f'No variant is above {label(name)}, which needs no training run:'
    f' {", ".join(f"{n} {score:.1f}" for n, score in found.items())}.'
    for name, entry in summary['baselines'].items()
    if (found := entry['unbeaten'])
  ]


def remarks(
  summary: Mapping[str, dict],
  config: config_lib.Config,
  tasks: task_lib.TaskTable,
) -> list[str]:
  """Returns sentences that explain the main table and its limits."""
  variants, undefined = summary['variants'], summary['undefined']
  count = len(config_lib.seeds_of_shard(config))
  said = []
  if count > 1:
    few = f'; the paper takes at least {_PAPER_SEEDS}'
    whole = not any(variant['missing'] for variant in variants.values())
    said = [
      f'n = {count} seeds: each number is the median of'
      f' {"them" if whole else "those that were run"}'
      f'{few if count < _PAPER_SEEDS else ""}.'
    ]
    said += _about_stars(summary)
  said += _about_corrections(summary)
  said += [
    'Scores are 0 to 100 on dev, of the last step. Bold: highest of a column.',
    'Average (paper): mean over tasks of the metric in the head of the table.',
    f'Average (GLUE): {_glue_rule(tasks)}.',
  ]
  said += _about_controls(variants, config)
  said += _about_baselines(summary['baselines'], config)
  if summary['weak']:
    said.append(
      f"{WEAK}: no better than the majority, by the median of the task's first"
      ' metric, or one class only is predicted with some seed.'
    )
  left_out = [t.name for t in tasks.tasks if not t.in_average]
  if left_out:
    said.append(f'In no average: {", ".join(left_out)}.')
  for name, variant in variants.items():
    if variant['missing']:
      said.append(
        f'{label(name)} is incomplete, so it has no average:'
        f' {_lacking(variant["missing"])}.'
      )
  if undefined:
    said.append(
      'Undefined scores, so that medians, averages and tests with them are'
      f' undefined too: {"; ".join(map(_undefined, undefined))}.'
    )
  return said


def _about_controls(
  variants: Mapping[str, dict], config: config_lib.Config
) -> list[str]:
  """Names settings that confound Single with multi-task training."""
  lengths = config.single, config.multi
  rates = [(each.epochs, each.learning_rate) for each in lengths]
  is_single = {name: variants_lib.resolve(config, name)[0] for name in variants}
  searched = variants_lib.searched(config) & {*variants}
  if (
    rates[0] == rates[1]
    or len({*is_single.values()}) < 2
    or any(is_single[name] for name in searched)
  ):
    return []
  one, many = ('{:g} epochs at rate {:g}'.format(*each) for each in rates)
  return [
    f'Single-task runs take {one}, multi-task runs {many}, and no searched'
    ' single-task variant was run: their difference is not of multi-task'
    ' training alone (`single_searched`, config.search).'
  ]


def _about_baselines(
  baselines: Mapping[str, dict], config: config_lib.Config
) -> list[str]:
  """Explains the rows of the baselines, or how to get them."""
  if baselines:
    return [
      'Majority: the most frequent label of the training rows, or their mean'
      ' score, for every example. Frozen encoder: a linear model of the mean'
      ' hidden states before training. Neither has seeds, so neither is tested.'
    ]
  if config.plan.baselines:
    return [
      'The majority class and a frozen encoder are not shown, because this work'
      ' directory has no scores of them; --mode=evaluate adds them, and so does'
      ' --mode=run.'
    ]
  return []


def _undefined(found: Mapping[str, object]) -> str:
  """Describes some undefined scores and their reason."""
  return (
    f'{found["metric"]} of {found["task"]} ({found["split"]}),'
    f' {label(found["variant"])}, {_seeds(found["seeds"])}: {found["reason"]}'
  )


def _seeds(seeds: Sequence[int | str]) -> str:
  """Formats seeds, such as `seeds 0, 1`."""
  plural = '' if len(seeds) == 1 else 's'
  return f'seed{plural} {", ".join(map(str, seeds))}'


def _lacking(missing: Mapping[str, Sequence[str]]) -> str:
  """Lists the seeds that lack tasks, grouped by the missing tasks."""
  seeds: dict[tuple[str, ...], list[str]] = {}
  for seed, names in missing.items():
    seeds.setdefault(tuple(names), []).append(seed)
  return '; '.join(
    f'{_seeds(of)} {"lacks" if len(of) == 1 else "lack"} {", ".join(names)}'
    for names, of in seeds.items()
  )


def seeds_needed(tests: int, test: statistics.Test) -> str:
  """Explains how many seeds a number of tests needs for any star."""
  needed = statistics.seeds_needed(tests, test)
  return (
    f'Not enough seeds for a star: {tests} tests at once need {needed} seeds.'
  )


def _about_stars(summary: Mapping[str, dict]) -> list[str]:
  """Explains what a star claims, or why there are no stars."""
  tests = _cells(summary['comparisons'])
  tested = [test for test in tests if test['p_value'] is not None]
  if not tested:
    why = 'it takes Single, Multi and another one'
    if tests:
      why = 'there are too few seeds, or undefined scores'
    return [f'No variant has a star: {why}.']
  if all(test['reason'] == statistics.NOT_ENOUGH_SEEDS for test in tested):
    return [seeds_needed(len(tested), statistics.PERMUTATION)]
  said = [
    f'Stars: better than Single and than Multi, {LEVELS}; permutation over'
    " seeds of Welch's statistic, which compares means, the larger p of the"
    ' two.'
  ]
  others = [
    other['corrected']
    for test, other in zip(tests, _cells(summary['over_examples']))
    if test['stars'] and other['corrected'] is not None
  ]
  stars = sum(bool(test['stars']) for test in tests)
  if others:
    agree = sum(p < statistics.LEVEL for p in others)
    said.append(
      'A star says that other seeds would agree. That other dev examples would'
      f' agree too is shown for {agree} of {stars}, by a t-test over seeds and'
      f' examples: see {BASELINES_TITLE}.'
    )
  elif stars:
    said.append('Stars speak of other seeds, not of other dev examples.')
  return said


def _cells(tests: Mapping[str, Mapping[str, dict]]) -> list[dict]:
  """Returns the cells of a table by variant and column."""
  return [cell for by_column in tests.values() for cell in by_column.values()]


def _about_corrections(summary: Mapping[str, dict]) -> list[str]:
  """Says which p-values are corrected together, and how many they are."""
  found = summary['verdicts']
  families = {
    'the first sentence': list(found['averages'].values()),
    'what serves best': list(found['tasks'].values()),
    'the stars, and each other test of the same scores': _cells(
      summary['comparisons']
    ),
  }
  for table in summary['pairs']:
    families[pair_title(table)] = table['rows']
  counts = {
    name: sum(cell['corrected'] is not None for cell in cells)
    for name, cells in families.items()
  }
  told = '; '.join(f'{name} ({n})' for name, n in counts.items() if n)
  if not told:
    return []
  return [f"p-values are corrected together, by Holm's method, in: {told}."]


def pair_title(table: Mapping[str, object]) -> str:
  """Returns the title of a table of pairs."""
  return _PAIR_TITLES[table['kind']].format(task=table['task'])


def _glue_rule(tasks: task_lib.TaskTable) -> str:
  """Describes how GLUE's average of these tasks differs from the paper's."""
  others = []
  for task in tasks.tasks:
    if not task.in_average:
      continue
    differs = task.metrics != (task.paper_metric,)
    rule = f' by {" and ".join(task.metrics)}' if differs else ''
    if len(task.dev_splits) > 1:
      rule += f' over {" and ".join(task.dev_splits)}'
    if rule:
      others.append(task.name + rule)
  return f'the same, but {", ".join(others)}' if others else 'the same'


def changed(config: config_lib.Config) -> dict[str, object]:
  """Returns the configuration fields that differ from their defaults."""
  default = schema.flatten(config_lib.Config())
  return {
    key: value
    for key, value in schema.flatten(config).items()
    if key not in default or default[key] != value
  }
