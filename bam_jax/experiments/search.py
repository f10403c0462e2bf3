"""Searches learning rate and layer decay, with seeds that only it uses.

Each pair of values in `config.search` is tried with each of its seeds, for each
task that has single-task runs in the plan.
"""

from collections.abc import Iterable, Mapping, Sequence
import itertools
import math

import numpy as np

from bam_jax import config as config_lib
from bam_jax import files
from bam_jax import variants
from bam_jax.experiments import runs as runs_lib
from bam_jax.tasks import task as task_lib

FILE = 'choices.json'

# task -> pair -> seed -> score, nan where it is undefined
Scores = Mapping[str, Mapping[runs_lib.Choice, Mapping[int, float]]]


def plan_runs(config: config_lib.Config) -> list[runs_lib.Run]:
  """Returns the runs of the hyperparameter search; may be empty."""
  search = config.search
  if not search.seeds:
    return []
  pairs = itertools.product(
    search.learning_rates or [config.single.learning_rate],
    search.layer_decays or [config.single.layer_decay],
  )
  choices = [runs_lib.Choice(*pair) for pair in pairs]
  tasks = dict.fromkeys(
    run.tasks[0] for run in runs_lib.plan_runs(config) if run.is_single
  )
  return [
    runs_lib.Run(
      name=f'{variants.SEARCH}-s{seed}-{task}-{choice.label}',
      variant=variants.SEARCH,
      seed=seed,
      tasks=(task,),
      teachers={},
      start='',
      is_single=True,
      config=choice.apply(config),
      choices={task: choice},
    )
    for task in tasks
    for choice in choices
    for seed in search.seeds
  ]


def collect_scores(
  runs: Sequence[runs_lib.Run],
  records: Iterable[Mapping[str, object]],
  tasks: task_lib.TaskTable,
) -> Scores:
  """Returns each search run's first metric on the first dev split.

  `records` are those of `runs`, all of them finished.
  """
  result: dict[str, dict[runs_lib.Choice, dict[int, float]]] = {}
  for run, record in zip(runs, records, strict=True):
    ((name, choice),) = run.choices.items()
    task = tasks[name]
    score = record['scores'][name][task.dev_splits[0]][task.metrics[0]]
    result.setdefault(name, {}).setdefault(choice, {})[run.seed] = score
  return result


def choose(scores: Scores) -> dict[str, runs_lib.Choice]:
  """Chooses for each task the pair of values with the highest median score.

  Ties go to the smaller learning rate, then to the smaller layer decay. A
  median that includes an undefined score is the lowest, so that a pair whose
  run failed on one seed is not preferred.
  """
  return {
    task: min(pairs, key=lambda pair: (-_median(pairs[pair]), pair))
    for task, pairs in scores.items()
  }


def tasks_without_choice(scores: Scores) -> list[str]:
  """Returns the tasks whose median score is undefined for every setting."""
  return [
    task
    for task, pairs in scores.items()
    if max(map(_median, pairs.values())) == -math.inf
  ]


def to_json(scores: Scores, tasks: task_lib.TaskTable) -> dict[str, object]:
  """Returns search scores and best values by task, for `choices.json`."""
  result = {
    task: {
      'chosen': choice._asdict(),
      'by': f'median {tasks[task].metrics[0]} on {tasks[task].dev_splits[0]}',
      'tried': [
        {**pair._asdict(), 'median': _median(by_seed), 'scores': by_seed}
        for pair, by_seed in scores[task].items()
      ],
    }
    for task, choice in choose(scores).items()
  }
  return files.finite(result)


def describe(scores: Scores) -> str:
  """Returns a sentence for the report: the chosen values and how many tried."""
  chosen = ', '.join(
    f'{task} {choice.learning_rate:g} and {choice.layer_decay:g}'
    for task, choice in choose(scores).items()
  )
  pairs = next(iter(scores.values()))
  seeds = ', '.join(map(str, next(iter(pairs.values()))))
  text = (
    f'{chosen}; the best of {len(pairs)} pairs by the median dev score on seeds'
    f' {seeds}, none of which is reported; all of them in {FILE}'
  )
  if missing := tasks_without_choice(scores):
    text += (
      f'. No pair has a defined median for {", ".join(missing)}, so the'
      ' smallest one was taken'
    )
  return text


def _median(by_seed: Mapping[int, float]) -> float:
  median = float(np.median(list(by_seed.values())))
  return median if math.isfinite(median) else -math.inf
