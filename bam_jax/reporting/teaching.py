"""Summarises the quality of single-task teachers, and how often seeds agree."""

from collections.abc import Sequence
import contextlib
import itertools

import numpy as np

from bam_jax.reporting import outputs as outputs_lib
from bam_jax.reporting import scores as scores_lib
from bam_jax.reporting import statistics
from bam_jax.tasks import task as task_lib

TEACHER = 'single'


def summarise(
  runs: Sequence[scores_lib.RunScores], tasks: task_lib.TaskTable
) -> dict[str, dict]:
  """Summarises the quality of teachers and the agreement of their seeds.

  Returns:
    Task -> a dict with `quality`, medians over seeds in the form of
    `RunScores.quality`; and `agreement`, the share of dev examples on which two
    seeds predict the same class, 0 to 1. `agreement` is None if predictions are
    not classes, if there is only one seed, or if predictions are missing. Tasks
    with neither quality nor agreement are left out.
  """
  found = {}
  for task in tasks.tasks:
    own = [r for r in runs if (r.variant, r.task) == (TEACHER, task.name)]
    quality = statistics.medians([run.quality for run in own])
    same = None
    if task.kind.one_class:
      with contextlib.suppress(outputs_lib.Missing):
        paths = {run.seed: run.outputs for run in own}
        same = agreement(outputs_lib.read(task, paths).predictions)
    if quality or same is not None:
      found[task.name] = {'quality': quality, 'agreement': same}
  return found


def agreement(predictions: np.ndarray) -> float | None:
  """Returns how often two runs predict the same class, averaged over pairs.

  `predictions` are [S, N] class indices of S runs. The result is 0 to 1, or
  None for a single run.

  Example:
    >>> agreement(np.array([[0, 1], [0, 0], [0, 1]]))
    0.6666666666666666
  """
  pairs = list(itertools.combinations(predictions, 2))
  same = sum(first == second for first, second in pairs)
  return float(np.mean(same) / len(pairs)) if pairs else None
