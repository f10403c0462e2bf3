"""The sentences of the report, and how it writes names and numbers."""

from collections.abc import Mapping, Sequence
import math

from bam_jax import config as config_lib
from bam_jax import schema
from bam_jax import variants as variants_lib
from bam_jax.reporting import comparisons
from bam_jax.reporting import statistics
from bam_jax.tasks import task as task_lib

_PAPER_SEEDS = 20
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


def headline(
  variants: Mapping[str, dict], untrained: Mapping[str, dict]
) -> str:
  """Returns a sentence on the best average and its gain over the baselines.

  Another one follows for each of `untrained`, the majority and the frozen
  encoder, whose average is not lower.
  """
  found = {name: variant['average'] for name, variant in variants.items()}
  averages = {name: value for name, value in found.items() if is_number(value)}
  is_undefined = any(v is not None and math.isnan(v) for v in found.values())
  if not averages:
    return (
      f'No variant has {"a defined" if is_undefined else "an"} average yet.'
    )
  best = max(averages, key=averages.get)
  gains = [
    f'{number(averages[best] - averages[b], "+.1f")} against {label(b)}'
    for b in comparisons.BASELINES
    if b in averages and b != best
  ]
  of = '' if len(averages) == len(variants) else ' of the complete variants'
  of = ' of the variants that have one' if is_undefined else of
  text = f'Highest average{of}: {label(best)}, {averages[best]:.1f}'
  text = f'{text} ({", ".join(gains)}).' if gains else f'{text}.'
  for name, entry in untrained.items():
    value = entry['average']
    if is_number(value) and value >= averages[best]:
      text += f' {label(name)}, without any training run: {value:.1f}.'
  return text


def remarks(
  summary: Mapping[str, dict],
  config: config_lib.Config,
  tasks: task_lib.TaskTable,
) -> list[str]:
  """Returns sentences that explain the main table and its limits."""
  variants, undefined = summary['variants'], summary['undefined']
  count = len(config_lib.seeds_of_shard(config))
  if count == 1:
    said = ['n = 1 seed: differences are not tested.']
  else:
    few = f'; the paper takes at least {_PAPER_SEEDS}'
    whole = not any(variant['missing'] for variant in variants.values())
    said = [
      f'n = {count} seeds: each number is the median of'
      f' {"them" if whole else "those that were run"}'
      f'{few if count < _PAPER_SEEDS else ""}. Differences are of medians.'
    ]
    said += _about_stars(summary['comparisons'])
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
      ' directory has no scores of them; --mode=evaluate adds them.'
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


def _about_stars(tests: Mapping[str, Mapping[str, dict]]) -> list[str]:
  """Explains what a star claims, or why there are no stars."""
  tested = [
    test
    for of_variant in tests.values()
    for test in of_variant.values()
    if test['p_value'] is not None
  ]
  if not tested:
    why = 'it takes Single, Multi and another one'
    if tests:
      why = 'there are too few seeds, or undefined scores'
    return [f'No variant is tested: {why}.']
  if all(test['reason'] == statistics.NOT_ENOUGH_SEEDS for test in tested):
    return [seeds_needed(len(tested), statistics.PERMUTATION)]
  return [
    f'Stars: better than Single and than Multi, {LEVELS}; permutation over'
    " seeds of Welch's statistic, which compares means, the larger p of the"
    f" two, after Holm's correction over {len(tested)} tests. They speak of"
    ' these dev sets, not of other examples.'
  ]


def _glue_rule(tasks: task_lib.TaskTable) -> str:
  """Describes how GLUE's average of these tasks differs from the paper's."""
  others = []
  for task in tasks.tasks:
    if not task.in_average:
      continue
    differs = task.glue_metrics != (task.paper_metric,)
    rule = f' by {" and ".join(task.glue_metrics)}' if differs else ''
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
