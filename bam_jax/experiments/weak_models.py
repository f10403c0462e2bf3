"""Finds models that score no better than a constant prediction."""

from collections.abc import Mapping, Sequence
import math
from typing import NamedTuple

import numpy as np

from bam_jax import variants
from bam_jax.experiments import baselines
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import runs as runs_lib
from bam_jax.reporting import outputs
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib

Finished = Sequence[tuple[runs_lib.Run, Mapping[str, object]]]


class Weak(NamedTuple):
  """Variants of a task that are no better than a constant prediction.

  Attributes:
    variants: names of the variants.
    text: what is wrong, and what to try.
  """

  variants: list[str]
  text: str


def find(plan: plan_lib.Plan, finished: Finished) -> dict[str, Weak]:
  """Finds variants that score no better than the majority baseline.

  A variant's score is the median over its seeds of the task's first metric on
  the first dev split. A variant is also weak if one of its runs predicts a
  single class for all rows. Returns task -> the weak variants on this task;
  tasks without weak variants are left out.
  """
  known = baselines.read(plan)
  found = {}
  for task in plan.tasks.tasks:
    runs: dict[str, list[tuple[runs_lib.Run, Mapping[str, object]]]] = {}
    for run, record in finished:
      if task.name in record['scores']:
        runs.setdefault(run.variant, []).append((run, record))
    scores = known.get(task.name, {}).get('scores', {})
    majority, frozen = (
      _score(task, scores.get(name, {})) for name in variants.UNTRAINED
    )
    low, constant = {}, {}
    for variant, own in runs.items():
      values = [_score(task, record['scores'][task.name]) for _, record in own]
      if majority is not None and None not in values:
        median = float(np.median(values))
        if not metrics.is_above(median, majority):
          low[variant] = f'{variant} {metrics.describe(median)}'
      seeds = _constant_seeds(plan, task, [run for run, _ in own])
      if seeds:
        plural = 's' if len(seeds) > 1 else ''
        named = ', '.join(map(str, seeds))
        constant[variant] = f'{variant} with seed{plural} {named}'
    parts = []
    if low:
      name = 'mean score' if task.kind.has_scale else 'majority'
      note = ', which counts as 0' if math.isnan(majority) else ''
      parts.append(
        f'no better than the {name} ({task.metrics[0]}'
        f' {metrics.describe(majority)}{note}): {", ".join(low.values())}'
      )
    if constant:
      parts.append(
        f'one class only is predicted by {", ".join(constant.values())}'
      )
    if parts:
      weak = list({**low, **constant})
      steps = [
        (run, runs_lib.steps_taken(record))
        for name in weak
        for run, record in runs[name]
      ]
      parts.append(_remedy(steps, majority, frozen))
      found[task.name] = Weak(weak, f'{task.name}: {"; ".join(parts)}')
  return found


def _score(
  task: task_lib.Task, scores: Mapping[str, Mapping[str, float]]
) -> float | None:
  return scores.get(task.dev_splits[0], {}).get(task.metrics[0])


def _remedy(
  steps: Sequence[tuple[runs_lib.Run, int]],
  majority: float | None,
  frozen: float | None,
) -> str:
  if majority == 100:
    return 'all dev rows have one label, so choose other dev rows'
  short = [(run, count) for run, count in steps if run.is_short(count)]
  if short:
    fewest = min(count for _, count in short)
    steps = 'step' if fewest == 1 else 'steps'
    remedies = dict.fromkeys(run.how_to_lengthen(n) for run, n in short)
    return f'trained for {fewest} {steps} only: {" and ".join(remedies)}'
  if frozen is None or majority is None:
    return 'try more steps or another learning rate'
  if metrics.is_above(frozen, majority):
    return (
      f'a frozen encoder reaches {metrics.describe(frozen)}, so try more steps'
      ' or another learning rate'
    )
  return (
    'a frozen encoder is no better, so try more training rows or another'
    ' encoder'
  )


def _constant_seeds(
  plan: plan_lib.Plan, task: task_lib.Task, runs: Sequence[runs_lib.Run]
) -> list[int]:
  """Returns the seeds of runs that predict one class for all dev examples."""
  if not task.kind.one_class:
    return []
  paths = {run.seed: plan.workspace.outputs(run.name) for run in runs}
  try:
    found = outputs.read(task, paths)
  except outputs.Missing:
    return []
  is_constant = np.ptp(found.predictions, axis=1) == 0
  return [seed for seed, flag in zip(found.seeds, is_constant) if flag]
