"""What a plan found: report.{json,md,html,tex} and scores.csv."""

from collections.abc import Mapping
from collections.abc import Sequence
import csv
import dataclasses
import io
import math
from pathlib import Path

import numpy as np

from bam_jax import config as config_lib
from bam_jax import escape
from bam_jax import files
from bam_jax import schema
from bam_jax.reporting import comparisons
from bam_jax.reporting import curves as curves_lib
from bam_jax.reporting import latex
from bam_jax.reporting import outputs as outputs_lib
from bam_jax.reporting import pages
from bam_jax.reporting import pairs
from bam_jax.reporting import statistics
from bam_jax.reporting import summaries
from bam_jax.reporting import teaching
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib


@dataclasses.dataclass(frozen=True)
class RunScores:
  """Scores of one task by one run.

  Attributes:
    variant: one of `config.variant_names`.
    seed: of the run.
    task: name of the task.
    scores: dev split -> metric -> value, 0-100; nan where undefined.
    curve: metrics.jsonl of the run that was trained; the tasks of a multi-task
      run share it. It may be missing.
    outputs: outputs.npz of the same run. It may be missing.
    quality: of the run as a teacher of the task; empty where none is recorded.
    share: of its examples that were to be of the task, 0 to 1; None where it
      is not recorded.
    undefined: dev split -> metric -> why its score is undefined.
  """

  variant: str
  seed: int
  task: str
  scores: Mapping[str, Mapping[str, float]]
  curve: Path
  outputs: Path
  quality: teaching.Quality
  share: float | None
  undefined: Mapping[str, Mapping[str, str]] = dataclasses.field(
    default_factory=dict
  )


def write(
  workdir: Path,
  config: config_lib.Config,
  tasks: task_lib.TaskTable,
  runs: Sequence[RunScores],
  notes: Mapping[str, str],
) -> None:
  """Writes the five files, each whole or not at all.

  Everything is rendered before the first file is replaced. Equal inputs give
  equal bytes.

  Args:
    workdir: where the files go.
    config: what was run; its variants and seeds are what a complete plan has.
    tasks: the tasks of the plan.
    runs: one a variant, seed and task, as far as the plan has come.
    notes: what a reader must know of how the numbers came about: data,
      pretrained weights, device, time, versions.

  Raises:
    errors.UserError: a file can't be written, or a metrics.jsonl is damaged.
  """
  summary = summarise(config, tasks, runs) | {
    'config': schema.to_dict(config),
    'notes': dict(notes),
  }
  order = config_lib.variant_names(config).index
  runs = sorted(
    runs, key=lambda r: (order(r.variant), r.seed, tasks.index[r.task])
  )
  curves = curves_lib.Curves(
    [(run.variant, run.task, run.curve) for run in runs]
  )
  summary['shares'] = _shares(runs, curves)
  texts = {
    'scores.csv': _csv(runs),
    'report.md': pages.markdown(summary, config, tasks),
    'report.html': pages.html_page(summary, config, tasks, curves),
    'report.tex': latex.document(summary, config, tasks),
    'report.json': files.json_text(summary),
  }
  for name, text in texts.items():
    files.write_text(workdir / name, text)


def summarise(
  config: config_lib.Config,
  tasks: task_lib.TaskTable,
  runs: Sequence[RunScores],
) -> dict[str, dict]:
  """Medians over seeds, 0-100.

  Whatever is made of an undefined score is undefined, which is nan here and
  null in report.json: no seed and no task is left out for it.

  Returns:
    `variants`: name -> `seeds` (how many have any score), `tasks` (task ->
    metric of the first dev split, or `METRIC (SPLIT)` of a further one ->
    median), `average` and `glue_average` (medians over seeds of
    `metrics.averages`; None unless every seed has every task) and `missing`
    (seed -> tasks without a score).
    `per_seed`: variant -> seed -> `tasks` and both averages of that seed.
    `statistics`: variant -> task or `average` -> `summaries.Summary` of the
    paper's metric over seeds.
    `comparisons`: what `comparisons.compare` found.
    `bootstrap`: what `comparisons.bootstrap` found.
    `pairs`: what `pairs.tables` found.
    `teachers`: what `teaching.summarise` found.
    `undefined`: what `_undefined` found.
  """
  found: dict[str, dict[int, dict]] = {name: {} for name in config.variants}
  for run in runs:
    seeds = found.setdefault(run.variant, {})
    seeds.setdefault(run.seed, {})[run.task] = run.scores
  variants, per_seed = {}, {}
  for variant in sorted(found, key=config_lib.variant_names(config).index):
    seeds = found[variant]
    own = config.custom_variants.get(variant)
    wanted = (own and own.tasks) or tasks.names
    missing = {
      str(seed): [n for n in wanted if n not in seeds.get(seed, {})]
      for seed in sorted({*config_lib.seeds_of_shard(config), *seeds})
    }
    missing = {seed: names for seed, names in missing.items() if names}
    partial = len(wanted) < len(tasks)
    per_seed[variant] = {
      str(seed): _one_seed(tasks, seeds[seed], partial or str(seed) in missing)
      for seed in sorted(seeds)
    }
    of_seeds = list(per_seed[variant].values())
    averages = {
      key: None
      if partial or missing
      else _median([seed[key] for seed in of_seeds])
      for key in ('average', 'glue_average')
    }
    variants[variant] = {
      'seeds': len(seeds),
      'tasks': _task_medians([seed['tasks'] for seed in of_seeds]),
      **averages,
      'missing': missing,
    }
  tests = comparisons.compare(per_seed, tasks)
  outputs = _outputs(config, tasks, runs)
  return {
    'variants': variants,
    'per_seed': per_seed,
    'statistics': _over_seeds(per_seed, tasks),
    'comparisons': tests,
    'bootstrap': comparisons.bootstrap(tests, outputs, tasks),
    'pairs': pairs.tables(config, per_seed, tasks),
    'teachers': teaching.summarise(_qualities(runs), outputs, tasks),
    'undefined': _undefined(runs),
  }


def _undefined(runs: Sequence[RunScores]) -> list[dict[str, object]]:
  """Undefined scores: variant, task, split, metric, reason and seeds."""
  seeds: dict[tuple[str, ...], list[int]] = {}
  for run in runs:
    for split, values in run.scores.items():
      for metric, value in values.items():
        if math.isnan(value):
          reason = _reason(run, split, metric)
          place = run.variant, run.task, split, metric, reason
          seeds.setdefault(place, []).append(run.seed)
  names = 'variant', 'task', 'split', 'metric', 'reason'
  return [
    dict(zip(names, place)) | {'seeds': sorted(of)}
    for place, of in sorted(seeds.items())
  ]


def _reason(run: RunScores, split: str, metric: str) -> str:
  return run.undefined.get(split, {}).get(metric, 'the reason is not recorded')


def _outputs(
  config: config_lib.Config,
  tasks: task_lib.TaskTable,
  runs: Sequence[RunScores],
) -> outputs_lib.Outputs:
  paths: dict[str, dict[str, dict[int, Path]]] = {}
  for run in runs:
    of_variant = paths.setdefault(run.task, {}).setdefault(run.variant, {})
    of_variant[run.seed] = run.outputs
  return outputs_lib.Outputs(paths, tasks, config.model.regression_head)


def _qualities(runs: Sequence[RunScores]) -> dict[str, list[teaching.Quality]]:
  """Task -> quality of each of its single-task teachers that has any."""
  found: dict[str, list[teaching.Quality]] = {}
  for run in runs:
    if run.variant == teaching.TEACHER and run.quality:
      found.setdefault(run.task, []).append(run.quality)
  return found


def _shares(
  runs: Sequence[RunScores], curves: curves_lib.Curves
) -> dict[str, dict[str, dict[str, float]]]:
  """Variant -> task -> share `intended` and `drawn`, 0 to 1.

  Of variants whose runs have several tasks, and recorded both.
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


def _over_seeds(
  per_seed: Mapping[str, Mapping[str, dict]], tasks: task_lib.TaskTable
) -> dict[str, dict[str, dict]]:
  """Variant -> task or average -> what its scores are like over seeds."""
  return {
    variant: {
      column: dataclasses.asdict(
        summaries.summarise(scores)
        if statistics.is_defined(scores)
        else summaries.Summary(len(scores), math.nan, math.nan)
      )
      for column in (*tasks.names, comparisons.AVERAGE)
      if (scores := comparisons.scores_of(seeds, column, tasks))
    }
    for variant, seeds in per_seed.items()
  }


def _one_seed(
  tasks: task_lib.TaskTable, scores: Mapping[str, Mapping], incomplete: bool
) -> dict[str, object]:
  """Scores of one seed under the report's metric names, and its averages."""
  named = {
    task.name: {
      metric if split == task.dev_splits[0] else f'{metric} ({split})': value
      for split, values in scores[task.name].items()
      for metric, value in values.items()
    }
    for task in tasks.tasks
    if task.name in scores
  }
  both = {'paper': None, 'glue': None}
  if not incomplete and any(task.in_average for task in tasks.tasks):
    both = metrics.averages(tasks.tasks, scores)
  return {
    'tasks': named,
    'average': both['paper'],
    'glue_average': both['glue'],
  }


def _task_medians(
  seeds: Sequence[Mapping[str, Mapping[str, float]]],
) -> dict[str, dict[str, float | None]]:
  """Task -> metric -> median over the seeds that have it."""
  values: dict[str, dict[str, list[float]]] = {}
  for seed in seeds:
    for task, scores in seed.items():
      for metric, value in scores.items():
        values.setdefault(task, {}).setdefault(metric, []).append(value)
  return {
    task: {metric: _median(items) for metric, items in by_metric.items()}
    for task, by_metric in values.items()
  }


def _median(values: Sequence[float | None]) -> float | None:
  """nan where a value is undefined; None where one is absent."""
  return None if None in values else float(np.median(values))


def _csv(runs: Sequence[RunScores]) -> str:
  """One line a variant, seed, task, split and metric, after a header.

  An undefined score has no value, and the reason in the last column.
  """
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  header = ['variant', 'seed', 'task', 'split', 'metric', 'value', 'undefined']
  writer.writerow(header)
  for run in runs:
    for split, values in run.scores.items():
      for metric, value in values.items():
        end = [repr(float(value)), '']
        if math.isnan(value):
          end = ['', escape.csv(_reason(run, split, metric))]
        what = map(escape.csv, (run.task, split, metric))
        writer.writerow([escape.csv(run.variant), run.seed, *what, *end])
  return file.getvalue()
