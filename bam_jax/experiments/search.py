"""Hyperparameter search, with its own seeds and on held-out training rows.

Each combination of values in `config.search` is tried with each of its seeds.
Single-task settings are searched for each task, and multi-task settings for
each set of tasks, if a variant uses searched settings. The runs of the search
leave out some training rows and are scored on them. No dev row is read.
"""

from collections.abc import Iterable, Mapping, Sequence
import itertools
import math
from typing import NamedTuple

import numpy as np

from bam_jax import config as config_lib
from bam_jax import files
from bam_jax import schema
from bam_jax import variants
from bam_jax.data import folds
from bam_jax.experiments import runs as runs_lib
from bam_jax.tasks import task as task_lib

FILE = 'choices.json'

# The report points out tasks with fewer held-out rows than this.
_FEW_ROWS = 100

# `runs.choice_key` -> settings -> seed -> score, nan if it is undefined
Scores = Mapping[str, Mapping[runs_lib.Choice, Mapping[int, float]]]


class Result(NamedTuple):
  """Scores of a hyperparameter search.

  Attributes:
    scores: see `Scores`; the score of a multi-task run is a mean over tasks.
    metrics: `runs.choice_key` -> description of the score.
    held_out: task -> number of held-out rows.
  """

  scores: Scores
  metrics: Mapping[str, str]
  held_out: Mapping[str, int]


def plan_runs(
  config: config_lib.Config,
  trained_tasks: runs_lib.TrainedTasks = lambda name: None,
) -> list[runs_lib.Run]:
  """Returns the runs of the hyperparameter search; may be empty.

  For `trained_tasks` see `runs.plan_runs`.
  """
  search = config.search
  fold = folds.HeldOut(search.held_out, search.max_held_out)
  result = []
  for key, (is_single, tasks) in _searched_runs(config).items():
    variant = variants.SEARCH if is_single else variants.SEARCH_MULTI
    name = tasks[0] if is_single else ''
    if not is_single and tasks != config.tasks:
      name = schema.digest(tasks)[:8]
    for choice, seed in itertools.product(
      _choices(config, is_single), search.seeds
    ):
      parts = [variant, f's{seed}', name, choice.label, str(fold)]
      plain = '-'.join(filter(None, parts))
      digest = ''
      if not is_single:
        digest = runs_lib.name_for_tasks(plain, tasks, trained_tasks)
      result.append(
        runs_lib.Run(
          name='-'.join(filter(None, [plain, digest])),
          variant=variant,
          seed=seed,
          tasks=tasks,
          teachers={},
          start='',
          is_single=is_single,
          config=choice.apply(config, is_single),
          choices={key: choice},
          fold=fold,
        )
      )
  return result


def possible_runs(config: config_lib.Config) -> list[runs_lib.Run]:
  """Returns planned runs that cover all searched settings that affect batches.

  The runs cover all searched epochs, batch sizes and `changes_of`. They do not
  cover all learning rates and layer decays, because these settings do not
  change the batches.
  """
  choices = {
    key: list({each[2:]: each for each in _choices(config, is_single)}.values())
    for key, (is_single, _) in _searched_runs(config).items()
  }
  count = max(map(len, choices.values()), default=1)
  return [
    run
    for index in range(count)
    for run in runs_lib.plan_runs(
      config, {key: found[index % len(found)] for key, found in choices.items()}
    )
  ]


def longest_choices(config: config_lib.Config) -> dict[str, runs_lib.Choice]:
  """Returns choice key -> the settings with the most steps."""
  result = {}
  for key, (is_single, _) in _searched_runs(config).items():
    steps = {}
    for choice in _choices(config, is_single):
      own = choice.apply(config, is_single)
      length = own.single if is_single else own.multi
      steps[choice] = length.epochs / length.batch_size
    result[key] = max(steps, key=steps.get)
  return result


def _searched_runs(
  config: config_lib.Config,
) -> dict[str, tuple[bool, tuple[str, ...]]]:
  """Returns choice key -> `is_single` and tasks of the runs that use it."""
  if not config.search.seeds:
    return {}
  searched = variants.searched(config)
  return {
    runs_lib.choice_key(run.is_single, run.tasks): (run.is_single, run.tasks)
    for run in runs_lib.plan_runs(config)
    if run.variant in searched
  }


def _choices(
  config: config_lib.Config, is_single: bool
) -> list[runs_lib.Choice]:
  """Returns all combinations of the values to try."""
  grid = config.search if is_single else config.search.multi
  result = []
  for name in grid.changes_of or ('',):
    changed = config_lib.config_for_variant(config, name)
    own = changed.single if is_single else changed.multi
    combinations = itertools.product(
      grid.learning_rates or [own.learning_rate],
      grid.layer_decays or [own.layer_decay],
      grid.epochs or [None],
      grid.batch_sizes or [None],
    )
    result += [runs_lib.Choice(*each, name) for each in combinations]
  return result


def collect(
  runs: Sequence[runs_lib.Run],
  records: Iterable[Mapping[str, object]],
  tasks: task_lib.TaskTable,
) -> Result:
  """Collects the held-out scores of finished runs of the search.

  The score of a task is its `paper_metric`, which the report compares. The
  score of a multi-task run is the mean over its tasks. Tasks that the report
  leaves out of averages are left out here too, unless no other task remains.
  """
  result = Result({}, {}, {})
  for run, record in zip(runs, records, strict=True):
    ((key, choice),) = run.choices.items()
    averaged = [name for name in run.tasks if tasks[name].in_average]
    averaged = averaged or list(run.tasks)
    score = np.mean(
      [
        record['scores'][name][task_lib.HELD_OUT][tasks[name].paper_metric]
        for name in averaged
      ]
    )
    by_choice = result.scores.setdefault(key, {})
    by_choice.setdefault(choice, {})[run.seed] = float(score)
    metric = tasks[run.tasks[0]].paper_metric
    result.metrics[key] = (
      metric if run.is_single else f"mean of {len(averaged)} tasks' own metrics"
    )
    result.held_out.update(record['held_out'])
  return result


def choose(scores: Scores) -> dict[str, runs_lib.Choice]:
  """Returns choice key -> the settings with the highest median score.

  Ties go to the smaller learning rate, then to the smaller layer decay, fewer
  epochs and the smaller batch. Settings with an undefined score on any seed
  rank last, so that settings with a failed run are not preferred.
  """
  return {
    key: min(tried, key=lambda each: (-_median(tried[each]), each))
    for key, tried in scores.items()
  }


def to_json(result: Result) -> dict[str, object]:
  """Returns search scores and chosen settings, for `choices.json`."""
  table = {
    key: {
      'chosen': choice.values(),
      'by': f'median {result.metrics[key]} on {task_lib.HELD_OUT}',
      'tried': [
        {**each.values(), 'median': _median(by_seed), 'scores': by_seed}
        for each, by_seed in result.scores[key].items()
      ],
    }
    for key, choice in choose(result.scores).items()
  }
  return files.finite(table) | {'held-out rows': dict(result.held_out)}


def describe(result: Result) -> str:
  """Describes the chosen settings, and how many were tried, for the report."""
  scores = result.scores
  counts = dict.fromkeys(f'{len(tried)}' for tried in scores.values())
  seeds = next(iter(next(iter(scores.values())).values()))
  text = (
    f'{"; ".join(map(_chosen, choose(scores).items()))}. Each is the best of'
    f' {" or ".join(counts)} settings by the median score on training rows that'
    f' their runs left out, with seeds {", ".join(map(str, seeds))}, none of'
    f' which is reported. No dev row was used. All of them are in {FILE}'
  )
  few = [
    f'{task} {count}'
    for task, count in result.held_out.items()
    if count < _FEW_ROWS
  ]
  if few:
    text += f'. Few rows to choose on: {", ".join(few)}'
  missing = [
    key
    for key, tried in scores.items()
    if max(map(_median, tried.values())) == -math.inf
  ]
  if missing:
    text += (
      f'. No setting has a defined median for {", ".join(missing)}, so the'
      ' smallest one was taken'
    )
  return text


def _chosen(item: tuple[str, runs_lib.Choice]) -> str:
  key, choice = item
  values = []
  for name, value in choice.values().items():
    number = f'{value:g}' if isinstance(value, float) else value
    values.append(f'{name.replace("_", " ")} {number}')
  return f'{key.partition(":")[0]}: {", ".join(values)}'


def _median(by_seed: Mapping[int, float]) -> float:
  median = float(np.median(list(by_seed.values())))
  return median if math.isfinite(median) else -math.inf
