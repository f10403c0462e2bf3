"""Quality of the single-task teachers, and agreement between their seeds."""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from bam_jax.reporting import outputs as outputs_lib
from bam_jax.tasks import task as task_lib

TEACHER = 'single'

# `dev` or `train` -> name -> value, from `distillation.quality`.
Quality = Mapping[str, Mapping[str, float]]


def summarise(
  qualities: Mapping[str, Sequence[Quality]],
  outputs: outputs_lib.Outputs,
  tasks: task_lib.TaskTable,
) -> dict[str, dict]:
  """Medians over the teachers' seeds, and how often two seeds agree.

  Args:
    qualities: task -> the recorded quality of each of its teachers.
    outputs: predictions of the runs.
    tasks: the tasks of the plan.

  Returns:
    Task -> `quality`, medians under the names of one teacher's values, and
    `agreement`: of two seeds on dev, 0 to 1; None for scores, for one seed and
    without outputs. A task with neither is left out.
  """
  found = {}
  for task in tasks.tasks:
    entry = {
      'quality': _medians(qualities.get(task.name, ())),
      'agreement': None,
    }
    if task.kind.one_class:
      try:
        predicted = outputs.of(task.name, TEACHER).predictions
        entry['agreement'] = agreement(predicted)
      except outputs_lib.Missing:
        pass
    if entry['quality'] or entry['agreement'] is not None:
      found[task.name] = entry
  return found


def agreement(predictions: np.ndarray) -> float | None:
  """Share of examples on which two runs agree, mean over pairs of runs.

  Args:
    predictions: [S, N] class indices.

  Returns:
    0 to 1; None for a single run.

  Example:
    >>> agreement(np.array([[0, 1], [0, 0], [0, 1]]))
    0.6666666666666666
  """
  runs = len(predictions)
  if runs < 2:
    return None
  pairs = np.zeros(predictions.shape[1])
  for label in np.unique(predictions):
    voices = np.count_nonzero(predictions == label, axis=0)
    pairs += voices * (voices - 1) / 2
  return float(np.mean(pairs) / (runs * (runs - 1) / 2))


def _medians(qualities: Sequence[Quality]) -> dict[str, dict[str, float]]:
  """`dev` or `train` -> name -> median over the teachers with that value."""
  values: dict[str, dict[str, list[float]]] = {}
  for quality in qualities:
    for rows, measured in quality.items():
      for name, value in measured.items():
        values.setdefault(rows, {}).setdefault(name, []).append(value)
  return {
    rows: {name: float(np.median(items)) for name, items in by_name.items()}
    for rows, by_name in values.items()
  }
