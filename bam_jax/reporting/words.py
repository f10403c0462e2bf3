"""Writes the report's sentences, and formats its names and numbers."""

from collections.abc import Callable, Mapping, Sequence
import functools
import math
from pathlib import Path
import tomllib

import jinja2
import numpy as np

from bam_jax import config as config_lib
from bam_jax import escape
from bam_jax import schema
from bam_jax import variants as variants_lib
from bam_jax.reporting import comparisons
from bam_jax.reporting import statistics
from bam_jax.reporting import verdicts
from bam_jax.tasks import glue
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib

_TEXTS = tomllib.loads(
  Path(__file__).with_name('texts.toml').read_text(encoding='utf-8')
)
# Verdict on a task -> recommendation, in the order of `_serve`'s sentence.
_VERDICTS = {
  'student': 'serve {student}',
  'own': 'serve its own model',
  'baseline': 'a baseline scores higher than every variant',
  'no difference': 'no difference shown',
  'not tested': 'not tested',
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


def label(variant: str) -> str:
  """Returns the name that the report shows for a variant."""
  return _TEXTS['labels'].get(variant, variant.replace('_', ' '))


def text(name: str, **values: object) -> str:
  """Returns a text from texts.toml, with values filled in.

  Example:
    >>> text('pairs.study', task='rte')
    'Which tasks help rte'
  """
  group, key = name.split('.')
  return _TEXTS[group][key].format(**values)


def is_number(value: float | None) -> bool:
  """Returns whether a score exists and is defined."""
  return value is not None and not math.isnan(value)


def number(
  value: float | None, form: str = '.1f', absent: str = NOTHING
) -> str:
  """Formats a number; nan becomes `undefined`, and None becomes `absent`."""
  if value is None:
    return absent
  if math.isnan(value):
    return UNDEFINED
  return format(value, form).replace('-', '\N{MINUS SIGN}')


# Key of a number -> name of its column, number format, factor to multiply by.
Columns = Mapping[str, tuple[str, str, int]]


def names(columns: Columns) -> list[str]:
  """Returns the names of the columns."""
  return [name for name, _, _ in columns.values()]


def numbers(found: Mapping[str, float], columns: Columns) -> list[str]:
  """Formats the number of each column; a missing number becomes a dash."""
  return [
    number(found[key] * factor if key in found else None, form)
    for key, (_, form, factor) in columns.items()
  ]


def interval(low: float | None, high: float | None, form: str) -> str:
  """Formats an interval; a missing interval becomes a dash."""
  if low is None:
    return NOTHING
  return f'{number(low, form)} to {number(high, form)}'


def median_interval(found: Mapping[str, float | None]) -> str:
  """Formats the interval of a median; shows a coverage below 95%."""
  ends = interval(found['low'], found['high'], '.2f')
  if found['low'] is None or found['coverage'] >= 0.95:
    return ends
  return f'{ends} ({found["coverage"]:.0%})'


def p_value(value: float | None) -> str:
  """Formats a p-value with three digits, without the zero before the point."""
  if value is None:
    return NOTHING
  return '<.001' if value < 0.001 else f'{value:.3f}'.removeprefix('0')


def p_sentence(value: float) -> str:
  """Formats a p-value within a sentence, such as `p < .001` or `p = .021`."""
  number = p_value(value)
  return f'p < {number[1:]}' if number.startswith('<') else f'p = {number}'


def averages(tasks: task_lib.TaskTable) -> tuple[str, ...]:
  """Returns the names of the two averages over tasks.

  The first average is of the `paper_metric` of each task. The second average is
  of all metrics on all dev splits. Returns a single name if both averages are
  the same.
  """
  if not {*tasks.names}.isdisjoint(glue.TASKS):
    return 'paper', 'GLUE'
  if all(
    task.metrics == (task.paper_metric,) and len(task.dev_splits) == 1
    for task in tasks.tasks
    if task.in_average
  ):
    return ('over tasks',)
  return 'one metric', 'all metrics'


def headline(summary: Mapping[str, dict]) -> list[str]:
  """Returns the report's first sentences: averages, and models to serve."""
  found = summary['verdicts']
  sentences = [_about_average(summary)]
  sentences += [
    f'No variant is above {label(name)}, which needs no training run:'
    f' {", ".join(f"{n} {score:.1f}" for n, score in unbeaten.items())}'
    + text(f'baselines.{name}')
    for name, entry in summary['baselines'].items()
    if (unbeaten := entry['unbeaten'])
  ]
  if found['tasks']:
    sentences.append(_serve(found))
    weak = [
      task
      for task, cell in found['tasks'].items()
      if found.get(cell['verdict']) in summary['weak'].get(task, ())
    ]
    if weak:
      sentences.append(text('verdicts.weak', tasks=', '.join(weak), sign=WEAK))
  cells = [*found['averages'].values(), *found['tasks'].values()]
  over = {cell['over'] for cell in cells}
  limits = [w for w in (verdicts.EXAMPLES, verdicts.SEEDS) if w in over]
  return sentences + [text(f'limits.{what}') for what in limits]


def _about_average(summary: Mapping[str, dict]) -> str:
  """Compares the student's average with others, or names the best average."""
  found, variants = summary['verdicts'], summary['variants']
  if found['averages']:
    averages = {
      name: summary['statistics'][name][comparisons.AVERAGE]
      for name in (found['student'], *found['averages'])
    }
    # Means, as in the test. They are rounded before they are subtracted, so
    # that the differences in the sentence fit the means in the sentence.
    means = {name: round(each['mean'], 1) for name, each in averages.items()}
    mean = means[found['student']]
    against = ' and '.join(
      _against(found, name, mean, means[name]) for name in found['averages']
    )
    student = label(found['student'])
    if found['is_taught']:
      # A variant may itself be called `student`.
      student = f'the student {student}'.replace('student student', 'student')
    seeds = max(each['seeds'] for each in averages.values())
    of = f'; means of {seeds} seeds' if seeds > 1 else ''
    return f'On average {student} ({number(mean)}) is {against}{of}.'
  averages = {
    name: variant['average']
    for name, variant in variants.items()
    if variant['average'] is not None
  }
  defined = {n: value for n, value in averages.items() if is_number(value)}
  if not defined:
    return f'No variant has {"a defined" if averages else "an"} average yet.'
  of = '' if len(averages) == len(variants) else ' of the complete variants'
  if len(defined) < len(averages):
    of = ' of the variants that have one'
  best = max(defined, key=defined.get)
  return f'Highest average{of}: {label(best)}, {defined[best]:.1f}.'


def _against(
  found: Mapping[str, object], baseline: str, student: float, mean: float
) -> str:
  """Compares the student's average with `mean`, the average of a variant."""
  cell = found['averages'][baseline]
  difference = 'not comparable with'
  if is_number(student - mean):
    side = 'below' if student < mean else 'above'
    difference = f'{number(abs(student - mean))} {side}'
    if difference.startswith('0.0'):
      difference = 'level with'
  if cell['corrected'] is None:
    test = ': '.join(filter(None, ('not tested', cell['reason'])))
  else:
    test = p_sentence(cell['corrected'])
    test += ', no difference shown' * (cell['verdict'] == 'no difference')
  if is_number(mean):
    test = f'{number(mean)}; {test}'
  if baseline != found['teacher']:
    return f'{difference} {label(baseline)} ({test})'
  if not found['teacher_is_scored']:
    return f"{difference} {label(baseline)} (its teachers' settings, {test})"
  separator = ', ' if is_number(mean) else '; '
  return f'{difference} its teachers ({label(baseline)}{separator}{test})'


def verdict(found: Mapping[str, object], kind: str) -> str:
  """Returns the recommendation of a verdict; `kind` is a key of `_VERDICTS`."""
  student = 'the student' if found['is_taught'] else label(found['student'])
  return _VERDICTS[kind].format(student=student)


def _serve(found: Mapping[str, Mapping]) -> str:
  tasks: dict[str, list[str]] = {kind: [] for kind in _VERDICTS}
  for task, cell in found['tasks'].items():
    tasks[cell['verdict']].append(task)
  said = {kind: names for kind, names in tasks.items() if names}
  if len(said) == 1 < len(found['tasks']):
    (kind,) = said
    is_no = kind in ('no difference', 'not tested')
    said = {kind: ['any task' if is_no else 'every task']}
  sentence = '; '.join(
    f'{verdict(found, kind)} for {", ".join(names)}'
    for kind, names in said.items()
  )
  sentence = f'{sentence[0].upper()}{sentence[1:]}.'
  if 'no difference' in said:
    student = verdict(found, 'student').removeprefix('serve ')
    sentence += text('verdicts.either', student=student)
  return sentence


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
  names = {key: label(found[key]) for key in ('student', 'own')}
  note = text('verdicts.note', **names)
  if tests:
    note += text('verdicts.tests', tests=' and '.join(tests))
  if any(cell['verdict'] == 'baseline' for cell in found['tasks'].values()):
    note += text('verdicts.baseline')
  why = first_of([cell['reason'] for cell in found['tasks'].values()])
  return note + text('verdicts.untested', why=why) if why else note


def first_of(reasons: Sequence[str]) -> str:
  """Returns the first reason, and how many other reasons there are."""
  found = list(dict.fromkeys(filter(None, reasons)))
  others = f' (and {len(found) - 1} more)' if len(found) > 1 else ''
  return f'{found[0]}{others}' if found else ''


def remarks(
  summary: Mapping[str, dict],
  config: config_lib.Config,
  tasks: task_lib.TaskTable,
) -> list[str]:
  """Returns the sentences below the main table, from remarks.j2."""
  tests = _cells(summary['comparisons'])
  tested = [test for test in tests if test['p_value'] is not None]
  reasons = {test['reason'] for test in tested}
  too_few_seeds = ''
  if reasons == {statistics.NOT_ENOUGH_SEEDS}:
    too_few_seeds = describe_power(len(tested), statistics.PERMUTATION)
  over_examples = [
    other['corrected']
    for test, other in zip(tests, _cells(summary['over_examples']))
    if test['stars']
  ]
  # The template writes one sentence per line, so values must have no newline.
  remarks_template = template(
    'remarks', finalize=lambda value: str(value).replace('\n', ' ')
  )
  sentences = remarks_template.render(
    {**summary, 'config': config},
    tasks=tasks.tasks,
    averages=averages(tasks),
    own_scale=sorted(
      metrics.OWN_SCALE & {m for task in tasks.tasks for m in task.metrics}
    ),
    seeds=len(config_lib.seeds_of_shard(config)),
    tests=tests,
    tested=tested,
    too_few_seeds=too_few_seeds,
    stars=len(over_examples),
    agree=[p < statistics.LEVEL for p in over_examples if p is not None],
    levels=LEVELS,
    baselines_title=text('baselines.title'),
    corrections=_corrections(summary),
    lengths=_lengths(summary['variants'], config),
    weak_sign=WEAK,
  )
  return sentences.strip().split('\n')


@functools.cache
def template(name: str, **options: object) -> jinja2.Template:
  """Returns the template `name`.j2 of this folder.

  `options` are those of `jinja2.Environment`.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
    **options,
  )
  environment.filters |= {
    'label': label,
    'seeds': _seeds,
    'lacking': _lacking,
    'settings': _settings,
    'line': escape.markdown,
    'paragraph': escape.paragraph,
  }
  return environment.get_template(f'{name}.j2')


def _settings(changes: Mapping[str, object]) -> str:
  """Writes nested settings as on the command line, after `--config.`."""
  flat = schema.flatten(changes)
  return ', '.join(f'{name}={value}' for name, value in flat.items())


def _lengths(
  variants: Mapping[str, dict], config: config_lib.Config
) -> list[str]:
  """Describes the run lengths of Single and Multi if they differ.

  Returns an empty list if the lengths are equal, if a search chose them, or if
  the report has only single-task or only multi-task variants.
  """
  lengths = [_length(each) for each in (config.single, config.multi)]
  is_single = {
    variants_lib.resolve(config, name).is_single for name in variants
  }
  if (
    lengths[0] == lengths[1]
    or len(is_single) < 2
    or variants_lib.searched(config) & {'single', 'multi'}
  ):
    return []
  return lengths


def _length(length: config_lib.RunLengthConfig) -> str:
  """Describes a run length, with the bounds that may override its epochs."""
  bounds = {
    ', at most {:g} steps': length.max_steps,
    ', at least {:g} steps': length.min_steps,
    ', at least {:g} passes over each task': length.min_passes,
  }
  plural = '' if length.epochs == 1 else 's'
  told = [form.format(bound) for form, bound in bounds.items() if bound]
  told.append(f'{"," if told else ""} at rate {length.learning_rate:g}')
  return f'{length.epochs:g} epoch{plural}{"".join(told)}'


def _seeds(seeds: Sequence[int | str]) -> str:
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


def describe_power(tests: int, test: Callable[..., np.ndarray]) -> str:
  """Says how many seeds are needed before any test can get a star.

  `tests` is the number of tests, whose p-values are corrected together.
  """
  needed = statistics.seeds_needed(tests, test)
  return text('pairs.too_few_seeds', tests=tests, seeds=needed)


def _cells(tests: Mapping[str, Mapping[str, dict]]) -> list[dict]:
  return [cell for by_column in tests.values() for cell in by_column.values()]


def _corrections(summary: Mapping[str, dict]) -> list[str]:
  """Lists the groups of p-values that are corrected together, with sizes."""
  found = summary['verdicts']
  groups = {
    'the first sentence': found['averages'].values(),
    'the models to serve': found['tasks'].values(),
    'the stars, and each other test of the same scores': _cells(
      summary['comparisons']
    ),
    **{pair_title(table): table['rows'] for table in summary['pairs']},
  }
  sizes = {
    name: sum(cell['corrected'] is not None for cell in cells)
    for name, cells in groups.items()
  }
  return [f'{name} ({size})' for name, size in sizes.items() if size]


def pair_title(table: Mapping[str, object]) -> str:
  """Returns the title of a table of pairs."""
  return text(f'pairs.{table["kind"]}', task=table['task'])


def changed(config: config_lib.Config) -> dict[str, object]:
  """Returns the configuration fields that differ from their defaults."""
  default = config_lib.default_values()
  return {
    key: value
    for key, value in schema.flatten(config).items()
    if key not in default or default[key] != value
  }
