"""Finds models that a constant prediction matches, for report, log and card."""

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
    variants: their names.
    text: what is wrong, and in which direction the remedy lies.
  """

  variants: list[str]
  text: str


def find(plan: plan_lib.Plan, finished: Finished) -> dict[str, Weak]:
  """Finds variants whose median is no better than the majority's score.

  The score is the task's first metric on its first dev split. A variant is weak
  too if the predictions of one of its runs are all of one class.

  Args:
    plan: the plan of the runs.
    finished: finished runs with their records.

  Returns:
    Task -> its weak variants, for the tasks that have any.
  """
  known = baselines.read(plan)
  found = {}
  for task in plan.tasks.tasks:
    own: dict[str, list[tuple[runs_lib.Run, Mapping[str, object]]]] = {}
    for run, record in finished:
      if task.name in record['scores']:
        own.setdefault(run.variant, []).append((run, record))
    weak = _find(plan, task, own, known.get(task.name, {}).get('scores', {}))
    if weak:
      found[task.name] = weak
  return found


def _find(
  plan: plan_lib.Plan,
  task: task_lib.Task,
  runs: Mapping[str, Finished],
  scores: Mapping[str, Mapping],
) -> Weak | None:
  """Returns the weak variants of one task; `scores` are of its baselines."""
  split, metric = task.dev_splits[0], task.metrics[0]

  def score(record: Mapping[str, Mapping]) -> float | None:
    return record.get(split, {}).get(metric)

  majority = score(scores.get(variants.MAJORITY, {}))
  frozen = score(scores.get(variants.FROZEN, {}))
  low, constant, steps = {}, {}, {}
  for variant, own in runs.items():
    values = [score(record['scores'][task.name]) for _, record in own]
    if majority is not None and None not in values:
      median = float(np.median(values))
      if not metrics.is_above(median, majority):
        low[variant] = f'{variant} {_number(median)}'
    seeds = _constant_seeds(plan, task, [run for run, _ in own])
    if seeds:
      plural = 's' if len(seeds) > 1 else ''
      constant[variant] = (
        f'{variant} with seed{plural} {", ".join(map(str, seeds))}'
      )
    if variant in {**low, **constant}:
      run, record = min(own, key=lambda found: found[1]['steps'])
      steps.setdefault(record['steps'], run)
  if not steps:
    return None
  parts = []
  if low:
    name = 'mean score' if task.kind.has_scale else 'majority'
    note = ', which counts as 0' if math.isnan(majority) else ''
    parts.append(
      f'no better than the {name} ({metric} {_number(majority)}{note}):'
      f' {", ".join(low.values())}'
    )
  if constant:
    parts.append(
      f'one class only is predicted by {", ".join(constant.values())}'
    )
  fewest = min(steps)
  if fewest < runs_lib.FEW_STEPS:
    remedy = (
      f'trained for {fewest} steps only: {steps[fewest].how_to_lengthen()}'
    )
  elif frozen is None or majority is None:
    remedy = 'try more steps or another learning rate'
  elif metrics.is_above(frozen, majority):
    remedy = (
      f'a frozen encoder reaches {_number(frozen)}, so try more steps or'
      ' another learning rate'
    )
  else:
    remedy = (
      'a frozen encoder is no better, so it may take more training rows or'
      ' another encoder'
    )
  text = f'{task.name}: {"; ".join([*parts, remedy])}'
  return Weak(list({**low, **constant}), text)


def _constant_seeds(
  plan: plan_lib.Plan, task: task_lib.Task, runs: Sequence[runs_lib.Run]
) -> list[int]:
  """Returns the seeds of runs that predict one class for all dev examples."""
  if not task.kind.one_class:
    return []
  paths = {run.seed: plan.workspace.outputs(run.name) for run in runs}
  try:
    found = outputs.read({task.name: {'': paths}}, task, '')
  except outputs.Missing:
    return []
  is_constant = np.ptp(found.predictions, axis=1) == 0
  return [seed for seed, flag in zip(found.seeds, is_constant) if flag]


def _number(score: float) -> str:
  return 'undefined' if math.isnan(score) else f'{score:.1f}'
