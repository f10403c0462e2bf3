"""Search: values for single-task runs, chosen on seeds that report nothing.

Each pair of `config.search` is tried with each of its seeds, for each task that
has single-task runs in the plan. The runs are kept as all runs are, so that
what they chose follows from the work directory.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import itertools
import math

import numpy as np

from bam_jax import config as config_lib
from bam_jax import files
from bam_jax import variants
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import records
from bam_jax.tasks import task as task_lib

FILE = 'choices.json'

# task -> pair -> seed -> score, nan where it is undefined
Tried = Mapping[str, Mapping[plan_lib.Choice, Mapping[int, float]]]


def runs(config: config_lib.Config) -> list[plan_lib.Run]:
  """The runs that try the values; none where nothing is searched."""
  search = config.search
  if not search.seeds:
    return []
  pairs = itertools.product(
    search.learning_rates or [config.single.learning_rate],
    search.layer_decays or [config.single.layer_decay],
  )
  choices = [plan_lib.Choice(*pair) for pair in pairs]
  tasks = dict.fromkeys(
    run.tasks[0] for run in plan_lib.plan(config) if run.is_single
  )
  return [
    plan_lib.Run(
      name=f'{variants.SEARCH}-s{seed}-{task}-{choice.label}',
      variant=variants.SEARCH,
      seed=seed,
      tasks=(task,),
      teachers={},
      start='',
      is_single=True,
      config=choice.applied(config),
      choices={task: choice},
    )
    for task in tasks
    for choice in choices
    for seed in search.seeds
  ]


def tried(
  searched: Sequence[plan_lib.Run],
  record: Callable[[plan_lib.Run], Mapping[str, object]],
  tasks: task_lib.TaskTable,
) -> Tried:
  """The score of every run of the search: its task's first dev metric.

  Args:
    searched: the runs, all of them finished.
    record: of a finished run.
    tasks: the tasks of the plan.
  """
  result: dict[str, dict[plan_lib.Choice, dict[int, float]]] = {}
  for run in searched:
    ((name, choice),) = run.choices.items()
    task = tasks[name]
    scores = records.scores_of(record(run))[name][task.dev_splits[0]]
    of_choice = result.setdefault(name, {}).setdefault(choice, {})
    of_choice[run.seed] = scores[task.metrics[0]]
  return result


def choose(found: Tried) -> dict[str, plan_lib.Choice]:
  """The pair of the highest median over seeds, for each task.

  Ties go to the smaller learning rate, then to the smaller layer decay. A
  median with an undefined score in it is the lowest, so that a pair whose run
  failed on one seed is not preferred; `without_choice` are the tasks for which
  no pair has another.
  """
  return {
    task: min(pairs, key=lambda pair: (-_median(pairs[pair].values()), pair))
    for task, pairs in found.items()
  }


def without_choice(found: Tried) -> list[str]:
  """Tasks with an undefined median for every pair: the smallest is taken."""
  return [
    task
    for task, pairs in found.items()
    if all(_median(scores.values()) == -math.inf for scores in pairs.values())
  ]


def table(found: Tried, tasks: task_lib.TaskTable) -> dict[str, object]:
  """What was tried and what was chosen by task, as JSON; undefined is null."""
  choices = choose(found)
  result = {
    task: {
      'chosen': choices[task]._asdict(),
      'by': f'median {tasks[task].metrics[0]} on {tasks[task].dev_splits[0]}',
      'tried': [
        {
          **pair._asdict(),
          'median': _median(scores.values()),
          'scores': {str(seed): score for seed, score in scores.items()},
        }
        for pair, scores in pairs.items()
      ],
    }
    for task, pairs in found.items()
  }
  return files.finite(result)


def note(found: Tried) -> str:
  """For the report: what single-task runs were trained with, and why."""
  chosen = ', '.join(
    f'{task} {choice.learning_rate:g} and {choice.layer_decay:g}'
    for task, choice in choose(found).items()
  )
  pairs = next(iter(found.values()))
  seeds = ', '.join(map(str, next(iter(pairs.values()))))
  text = (
    f'{chosen}; the best of {len(pairs)} pairs by the median dev score on seeds'
    f' {seeds}, none of which is reported; all of them in {FILE}'
  )
  if unchosen := without_choice(found):
    text += (
      f'. Of {", ".join(unchosen)} no pair has a defined median, so the'
      ' smallest one was taken'
    )
  return text


def _median(scores: Sequence[float]) -> float:
  median = float(np.median(list(scores)))
  return median if math.isfinite(median) else -math.inf
