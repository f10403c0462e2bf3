"""Counts the runs, steps, labels and linear probes that a plan still needs."""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

from bam_jax.data import shards
from bam_jax.distillation import logit_sets
from bam_jax.experiments import baselines
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import probes
from bam_jax.experiments import runs as runs_lib
from bam_jax.tasks import task as task_lib


@dataclasses.dataclass(frozen=True)
class Remaining:
  """Remaining work of one run.

  Attributes:
    run: the run.
    steps: number of steps of the whole run.
    done: number of steps in its latest checkpoint; all steps if it is finished.
    labels: (task, split) pairs that the run must still label for students.
  """

  run: runs_lib.Run
  steps: int
  done: int
  labels: tuple[tuple[str, str], ...]

  @property
  def is_trained(self) -> bool:
    return self.done == self.steps

  @property
  def left(self) -> int:
    return self.steps - self.done

  @property
  def examples(self) -> int:
    return self.left * self.run.length.batch_size

  @property
  def group(self) -> tuple[str, tuple[str, ...]]:
    """Returns a key that is equal for runs whose steps take equally long."""
    part, fold = '', self.run.fold
    if self.run.is_search:
      part = f' batch {self.run.length.batch_size}'
    elif fold:
      part = f' fold {fold.number} of {fold.of}'
    return self.run.variant + part, self.run.tasks

  def steps_due(self, every: int) -> set[int]:
    """Returns the remaining steps that are multiples of `every`.

    The last step is left out. The result is empty if `every` is 0.
    """
    first = (self.done // every + 1) * every if every else self.steps
    return set(range(first, self.steps, every or 1))

  def rows_to_label(self) -> Iterator[tuple[str, str, int]]:
    """Yields task, split, and the number of runs that share the labelling."""
    for task, split in self.labels:
      fold = None if split == task_lib.UNLABELLED else self.run.fold
      yield task, split, fold.of if fold else 1


def count_remaining(
  plan: plan_lib.Plan,
  runs: Sequence[runs_lib.Run],
  todo: Sequence[runs_lib.Run],
) -> list[Remaining]:
  """Lists runs that must still train (those in `todo`) or write logits."""
  unfinished = {run.name for run in todo}
  result = []
  for run in runs:
    labels = tuple(
      (task, split)
      for task, split in plan.data.splits_to_label(run, todo)
      if not has_logits(plan, run, task, split)
    )
    if labels or run.name in unfinished:
      steps = plan.data.num_steps(run)
      done = plan.latest_step(run) if run.name in unfinished else steps
      result.append(Remaining(run, steps, done, labels))
  return result


class Probe(NamedTuple):
  """A linear probe that is not fitted yet.

  Attributes:
    task: name of the task.
    chosen: indices of the training rows that the probe is fitted to.
    encoded: number of rows to encode: the training rows in `chosen` and, if
      the probe is for a baseline, the dev rows, which it predicts.
  """

  task: str
  chosen: np.ndarray
  encoded: int


def list_probes(
  plan: plan_lib.Plan, remaining: Sequence[Remaining]
) -> list[Probe]:
  """Lists the probes needed for missing baselines and for initial heads."""
  result = []
  for name in baselines.find_missing(plan):
    task, features = plan.tasks[name], plan.features[name]
    chosen = probes.choose_rows(task, features[task.train_split])
    dev = sum(len(features[split]) for split in task.dev_splits)
    result.append(Probe(name, chosen, len(chosen) + dev))
  if plan.config.model.head_init == 'linear_probe':
    heads = probes.ProbedHeads(plan)
    new = [e.run for e in remaining if not e.done and not e.run.start]
    pairs = [(run, name) for run in new for name in run.tasks]
    for run, name in {heads.key(*pair): pair for pair in pairs}.values():
      chosen = heads.choose_rows(run, plan.tasks[name])[1]
      result.append(Probe(name, chosen, len(chosen)))
  return [probe for probe in result if len(probe.chosen) > 1]


def has_logits(
  plan: plan_lib.Plan, run: runs_lib.Run, task: str, split: str
) -> bool:
  """Whether a run has written its logits for a split."""
  folder = logit_sets.folder_name(task, split)
  return shards.exists(plan.workspace.teacher(run.name, folder))
