"""Precision, recall and F1 of each class or label, on the first dev split."""

from collections.abc import Mapping, Sequence
import contextlib
from pathlib import Path

from bam_jax.reporting import outputs as outputs_lib
from bam_jax.reporting import scores as scores_lib
from bam_jax.reporting import statistics
from bam_jax.tasks import class_metrics
from bam_jax.tasks import task as task_lib

MEASURES = ('precision', 'recall', 'f1')


def summarise(
  runs: Sequence[scores_lib.RunScores], tasks: task_lib.TaskTable
) -> dict[str, dict[str, dict[str, Mapping[str, float]]]]:
  """Summarises how well each class or label is predicted.

  Returns:
    Task -> variant -> label -> medians over seeds of `precision`, `recall` and
    `f1` (0 to 100, or nan if undefined), and of `rows`, the number of examples
    with this gold label. Tasks without classes, and variants without dev
    outputs, are left out.
  """
  paths: dict[str, dict[str, dict[int, Path]]] = {}
  for run in runs:
    if tasks[run.task].kind.has_probabilities:
      by_variant = paths.setdefault(run.task, {})
      by_variant.setdefault(run.variant, {})[run.seed] = run.outputs
  found: dict[str, dict[str, dict[str, Mapping[str, float]]]] = {}
  for name, by_variant in paths.items():
    for variant, by_seed in by_variant.items():
      with contextlib.suppress(outputs_lib.Missing):
        read = outputs_lib.read(tasks[name], by_seed)
        if read.gold is not None:
          found.setdefault(name, {})[variant] = _medians(tasks[name], read)
  return found


def _medians(
  task: task_lib.Task, read: outputs_lib.Predicted
) -> dict[str, dict[str, float]]:
  seeds = []
  for predictions in read.predictions:
    values = class_metrics.per_class(predictions, read.gold, task.num_outputs)
    seeds.append(
      {
        label: {
          key: float(of[i]) * (100.0 if key in MEASURES else 1.0)
          for key, of in values.items()
        }
        for i, label in enumerate(task.labels)
      }
    )
  return statistics.medians(seeds)
