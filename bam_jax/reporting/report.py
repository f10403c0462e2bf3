"""Writes the report of a plan.

The files are report.{json,md,html,tex}, scores.csv, errors.jsonl and a PNG file
per plot.
"""

from collections.abc import Mapping, Sequence
import math
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from bam_jax import config as config_lib
from bam_jax import escape
from bam_jax import files
from bam_jax import schema
from bam_jax import variants as variants_lib
from bam_jax.reporting import classes
from bam_jax.reporting import comparisons
from bam_jax.reporting import curves as curves_lib
from bam_jax.reporting import error_pages
from bam_jax.reporting import error_rows
from bam_jax.reporting import figures
from bam_jax.reporting import pages
from bam_jax.reporting import pairs
from bam_jax.reporting import plots as plots_lib
from bam_jax.reporting import scores as scores_lib
from bam_jax.reporting import statistics
from bam_jax.reporting import tables
from bam_jax.reporting import teaching
from bam_jax.reporting import verdicts
from bam_jax.reporting import words
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib


def write(
  workdir: Path,
  config: config_lib.Config,
  tasks: task_lib.TaskTable,
  runs: Sequence[scores_lib.RunScores],
  notes: Mapping[str, str],
  warnings: Sequence[str] = (),
  baselines: Mapping[str, Mapping] = MappingProxyType({}),
  weak: Mapping[str, Sequence[str]] = MappingProxyType({}),
  errors: error_rows.Analysis | None = None,
) -> list[str]:
  """Writes all files of the report; each file is replaced whole or not at all.

  Everything is rendered before the first file is replaced. The same inputs give
  the same bytes.

  Args:
    workdir: where the files go; a plot becomes `report_NAME.png`.
    config: configuration of the plan.
    tasks: the tasks of the plan.
    runs: scores of the finished runs, one per variant, seed and task.
    notes: facts about the numbers, such as data, weights, device and time.
    warnings: sentences without a final period, about problems that a reader of
      the scores must know.
    baselines: task -> record of the baselines. The record has `scores` and
      `undefined`, which are dicts with one key per baseline.
    weak: task -> variants to mark with `words.WEAK`.
    errors: the error analysis, for report.html and errors.jsonl only; None if
      there is no analysis.

  Returns:
    The sentences that the report starts with.

  Raises:
    errors.UserError: a file can't be written, or a metrics.jsonl is damaged.
  """
  order = config_lib.variant_names(config).index
  runs = sorted(
    runs, key=lambda r: (order(r.variant), r.seed, tasks.index[r.task])
  )
  curves = curves_lib.Curves(
    [(run.variant, run.task, run.curve) for run in runs]
  )
  summary = summarise(config, tasks, runs)
  summary |= {
    'baselines': _summarise_baselines(tasks, baselines, summary['variants']),
    'weak': {task: list(names) for task, names in weak.items()},
    'config': schema.to_dict(config),
    'notes': dict(notes),
    'warnings': list(warnings),
    'shares': _shares(runs, curves),
  }
  verdicts.prefer_baselines(summary['verdicts'], summary['baselines'])
  report = tables.Report(summary, config, tasks, curves)
  place, section = config.plan.report_texts, None
  if errors:
    section = error_pages.section(errors, tasks, place)
  plots = [(p, *figures.render(p)) for p in plots_lib.plots_of(report)]
  texts = {
    'scores.csv': scores_frame(runs, baselines)
    .map(lambda value: escape.csv(value) if isinstance(value, str) else value)
    .to_csv(index=False, lineterminator='\n'),
    'report.md': pages.render('report.md', report),
    'report.html': pages.render(
      'report.html', report, [plot[:2] for plot in plots], section
    ),
    'report.tex': pages.latex(report),
    'report.json': files.to_json(summary),
  }
  if errors:
    texts['errors.jsonl'] = error_rows.to_json_lines(
      errors, tasks, place != 'none'
    )
  for plot, _, png in plots:
    files.write_bytes(workdir / f'report_{plot.name}.png', png)
  for name, text in texts.items():
    files.write_text(workdir / name, text)
  return words.headline(summary)


def summarise(
  config: config_lib.Config,
  tasks: task_lib.TaskTable,
  runs: Sequence[scores_lib.RunScores],
) -> dict[str, dict]:
  """Summarises scores (0-100) over the seeds, and tests differences.

  A number that depends on an undefined score is undefined too: it is nan here
  and null in report.json. Seeds and tasks with undefined scores are not left
  out.

  Returns:
    `variants`: name -> `seeds` (number of seeds with any score), `tasks` (task
    -> metric -> median; the metrics of further dev splits are named `METRIC
    (SPLIT)`), `average` and `glue_average` (medians over seeds of
    `metrics.averages`; None unless every seed has every task) and `missing`
    (seed -> tasks without a score).
    `per_seed`: variant -> seed -> `tasks` and both averages of that seed.
    `statistics`: variant -> task or `average` -> `statistics.summarise` of the
    paper's metric over seeds.
    `verdicts`: the result of `verdicts.summarise`.
    `comparisons`: the result of `comparisons.compare`.
    `bootstrap` and `over_examples`: the results of `comparisons.resampled` with
    `comparisons.bootstrap` and with `comparisons.over_examples`.
    `pairs`: the result of `pairs.tables`.
    `teachers`: the result of `teaching.summarise`; empty if all students learn
    from external logits.
    `classes`: the result of `classes.summarise`.
    `decisions`: task -> variant -> medians over seeds of the numbers of
    `inference.decisions.fit`.
    `undefined`: list of undefined scores, each with `variant`, `task`, `split`,
    `metric`, `reason` and `seeds`.
  """
  by_seed: dict[str, dict[int, dict]] = {name: {} for name in config.variants}
  for run in runs:
    seeds = by_seed.setdefault(run.variant, {})
    seeds.setdefault(run.seed, {})[run.task] = run.scores
  per_seed = {
    variant: {
      str(seed): _one_seed(tasks, scores)
      for seed, scores in sorted(by_seed[variant].items())
    }
    for variant in config_lib.variant_names(config)
    if variant in by_seed
  }
  variants = {
    variant: _over_seeds(config, variant, seeds)
    for variant, seeds in per_seed.items()
  }
  scores = comparisons.scores_by_seed(per_seed, tasks)
  tests = comparisons.compare(scores)
  draws = comparisons.Draws(runs, tasks)
  return {
    'variants': variants,
    'per_seed': per_seed,
    'statistics': {
      variant: {
        column: statistics.summarise(values)
        for column, values in by_column.items()
      }
      for variant, by_column in scores.items()
    },
    'comparisons': tests,
    **{
      test.__name__: comparisons.resampled(tests, draws, test)
      for test in (comparisons.bootstrap, comparisons.over_examples)
    },
    'verdicts': verdicts.summarise(config, variants, scores, draws),
    'pairs': pairs.tables(config, scores),
    'teachers': {}
    if _have_others_taught(config)
    else teaching.summarise(runs, tasks),
    'decisions': _decisions(runs),
    'classes': classes.summarise(runs, tasks),
    'undefined': _undefined(scores_frame(runs)),
  }


def _have_others_taught(config: config_lib.Config) -> bool:
  """Whether there are students and all of them learn from external logits."""
  taught = [
    name
    for name in config.variants
    if variants_lib.resolve(config, name).teacher
  ]
  return bool(taught) and all(
    variants_lib.find_external_logits(config, name) for name in taught
  )


def _over_seeds(
  config: config_lib.Config, variant: str, seeds: Mapping[str, dict]
) -> dict[str, object]:
  """Summarises one variant's scores over its seeds."""
  planned = map(str, config_lib.seeds_of_shard(config))
  wanted = variants_lib.resolve(config, variant).tasks
  missing = {}
  for seed in sorted({*planned, *seeds}, key=int):
    known = seeds[seed]['tasks'] if seed in seeds else ()
    if lacking := [task for task in wanted if task not in known]:
      missing[seed] = lacking
  result = {
    'seeds': len(seeds),
    'tasks': statistics.medians([seed['tasks'] for seed in seeds.values()]),
  }
  for key in ('average', 'glue_average'):
    values = [seed[key] for seed in seeds.values()]
    is_complete = not missing and None not in values
    result[key] = float(np.median(values)) if is_complete else None
  return result | {'missing': missing}


def _summarise_baselines(
  tasks: task_lib.TaskTable,
  records: Mapping[str, Mapping],
  variants: Mapping[str, dict],
) -> dict[str, dict[str, object]]:
  """Summarises the scores of the majority class and of the frozen encoder.

  Returns:
    Baseline -> a dict with the entries of `_one_seed`, and two more:
    `unbeaten`: task or `average` -> the baseline's score, only if no variant
    has a higher score.
    `lead`: task or `average` -> the baseline's score minus the highest score of
    a variant; it has the same keys as `unbeaten`.
  """
  found: dict[str, dict[str, Mapping]] = {}
  for task, record in records.items():
    for name, scores in record['scores'].items():
      found.setdefault(name, {})[task] = scores
  result = {name: _one_seed(tasks, scores) for name, scores in found.items()}
  for entry in result.values():
    entry |= {'unbeaten': {}, 'lead': {}}
    for column in (comparisons.AVERAGE, *tasks.names):
      own, *others = (
        comparisons.score_of(each, column, tasks)
        for each in (entry, *variants.values())
      )
      known = [score for score in others if words.is_number(score)]
      if words.is_number(own) and known and own >= max(known):
        entry['unbeaten'][column] = own
        entry['lead'][column] = own - max(known)
  return result


def scores_frame(
  runs: Sequence[scores_lib.RunScores],
  baselines: Mapping[str, Mapping] = MappingProxyType({}),
) -> pd.DataFrame:
  """Returns a table with one row per variant, seed, task, split and metric.

  The column `value` is 0-100, or nan if the score is undefined. `undefined` is
  the reason why the score is undefined, and otherwise empty. `seed` is empty
  for baselines.
  """
  no_reason = 'the reason is not recorded'
  scored = [
    ((run.variant, run.seed, run.task), run.scores, run.undefined)
    for run in runs
  ]
  scored += [
    ((name, '', task), scores, record['undefined'].get(name, {}))
    for task, record in baselines.items()
    for name, scores in record['scores'].items()
  ]
  rows = [
    (
      *(*place, split, metric, float(value)),
      undefined.get(split, {}).get(metric, no_reason)
      if math.isnan(value)
      else '',
    )
    for place, scores, undefined in scored
    for split, values in scores.items()
    for metric, value in values.items()
  ]
  names = 'variant', 'seed', 'task', 'split', 'metric', 'value', 'undefined'
  # A name may be invalid Unicode, which only the dtype `object` can hold.
  frame = pd.DataFrame(rows, columns=names, dtype=object)
  return frame.astype({'value': 'float64'})


def _undefined(frame: pd.DataFrame) -> list[dict[str, object]]:
  """Lists undefined scores: variant, task, split, metric, reason and seeds."""
  # pandas can't group by names that are invalid Unicode.
  seeds: dict[tuple[str, ...], list[int]] = {}
  for row in frame[frame.value.isna()].itertuples():
    place = row.variant, row.task, row.split, row.metric, row.undefined
    seeds.setdefault(place, []).append(row.seed)
  names = 'variant', 'task', 'split', 'metric', 'reason', 'seeds'
  return [
    dict(zip(names, (*place, sorted(of))))
    for place, of in sorted(seeds.items())
  ]


def _decisions(
  runs: Sequence[scores_lib.RunScores],
) -> dict[str, dict[str, dict[str, float]]]:
  """Returns task -> variant -> medians over seeds of `RunScores.decisions`.

  Only numbers are included.
  """
  found: dict[str, list[dict[str, dict[str, float]]]] = {}
  for run in runs:
    if run.decisions:
      numbers = {k: v for k, v in run.decisions.items() if type(v) is float}
      found.setdefault(run.task, []).append({run.variant: numbers})
  return {task: statistics.medians(of) for task, of in found.items()}


def _shares(
  runs: Sequence[scores_lib.RunScores], curves: curves_lib.Curves
) -> dict[str, dict[str, dict[str, float]]]:
  """Collects the intended and the drawn share of each task in the examples.

  Returns:
    Variant -> task -> a dict with `intended` and `drawn`, 0 to 1. Variants with
    single-task runs, or without a record of both shares, are left out.
  """
  intended: dict[str, dict[str, float]] = {}
  for run in runs:
    if run.share is not None and run.share < 1:
      intended.setdefault(run.variant, {})[run.task] = run.share
  found = {}
  for variant, shares in intended.items():
    drawn = curves.drawn(variant)
    if set(drawn) == set(shares):
      found[variant] = {
        task: {'intended': share, 'drawn': drawn[task]}
        for task, share in shares.items()
      }
  return found


def _one_seed(
  tasks: task_lib.TaskTable, scores: Mapping[str, Mapping]
) -> dict[str, object]:
  """Returns one seed's scores by task and metric, and their averages.

  The keys are `tasks`, `average` and `glue_average`. The averages are None
  unless all tasks have scores and at least one task has `in_average`.
  """
  named = {
    task.name: {
      metric if split == task.dev_splits[0] else f'{metric} ({split})': value
      for split, values in scores[task.name].items()
      for metric, value in values.items()
    }
    for task in tasks.tasks
    if task.name in scores
  }
  average = glue_average = None
  is_complete = all(task.name in scores for task in tasks.tasks)
  if is_complete and any(task.in_average for task in tasks.tasks):
    averages = metrics.averages(tasks.tasks, scores)
    average, glue_average = averages['paper'], averages['glue']
  return {'tasks': named, 'average': average, 'glue_average': glue_average}
