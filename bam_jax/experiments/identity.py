"""What decides the outcome of a run, so that none is taken for another.

An identity maps dotted keys to JSON values: the run itself and the part of the
configuration it depends on (its settings), its rows, its teachers and the
run it starts from with all that these depend on.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax import schema
from bam_jax.data import shards
from bam_jax.distillation import outside
from bam_jax.experiments import jobs
from bam_jax.experiments import plan as plan_lib
from bam_jax.runtime import processes
from bam_jax.tasks import task as task_lib

# Configuration that says where rows come from or what they mean, and where
# weights do. Their own digests stand for it.
_COVERED_BY_ROWS = ('data.', 'custom_tasks.')
_COVERED_BY_WEIGHTS = (
  'model.init', 'model.if_missing', 'model.arch', 'model.vocab'
)  # fmt: skip

Identity = dict[str, object]


def settings(
  run: plan_lib.Run,
  tasks: task_lib.TaskTable,
  weights: str,
) -> Identity:
  """The part of an identity that is known without reading a row.

  Args:
    run: the run.
    tasks: the tasks of the plan.
    weights: digest of the pretrained weights; empty for random ones.
  """
  unused = ['multi.' if run.is_single else 'single.', *_COVERED_BY_ROWS]
  if weights:
    unused += _COVERED_BY_WEIGHTS
  if not run.is_taught:
    unused.append('distill.')
  if run.is_single:
    unused.append('sampling.')
  return {
    'run.variant': run.variant,
    'run.seed': run.seed,
    'run.tasks': list(run.tasks),
    **({'run.fold': dataclasses.asdict(run.fold)} if run.fold else {}),
    'weights': weights,
    **{
      f'config.{key}': value
      for key, value in config_lib.fingerprint_values(run.config).items()
      if not key.startswith(tuple(unused))
    },
    # What the logits mean, and what is scored and chooses the best checkpoint.
    **{
      f'config.custom_tasks.{name}.{key}': value
      for name in run.tasks
      if name in run.config.custom_tasks
      for key, value in (
        *tasks[name].definition().items(),
        ('metrics', list(tasks[name].metrics)),
      )
    },
  }


def outside_teachers(identity: Identity) -> tuple[str, ...]:
  """Who wrote the logits that a run learnt from, in words."""
  found = (
    value
    for key, value in sorted(identity.items())
    if key.startswith('logits.') and key.endswith('.teacher')
  )
  return tuple(dict.fromkeys(found))


def identities(
  runs: Sequence[plan_lib.Run],
  tasks: task_lib.TaskTable,
  weights: str,
  features: Mapping[str, Mapping[str, shards.Columns]],
  recorded: Callable[[str, Identity], Identity],
) -> dict[str, Identity]:
  """The identity of every run by its name.

  Args:
    runs: in the order of a plan.
    tasks: the tasks of the plan.
    weights: digest of the pretrained weights; empty for random ones.
    features: task -> split that runs are trained or scored on -> rows.
    recorded: name and identity of a run -> the identity as its record has it.

  Raises:
    errors.UserError: logits from outside are not there or of other rows.
  """
  result: dict[str, Identity] = {}
  for run in runs:
    identity = settings(run, tasks, weights)
    for task in run.tasks:
      for split, columns in features[task].items():
        if split == task_lib.UNLABELLED and not run.learns_unlabelled:
          continue
        identity[f'data.{task}.{split}'] = schema.digest(columns.fingerprint)
    for names in run.teachers.values():
      for name in names:
        identity[f'teacher.{name}'] = schema.digest(result[name])
    if run.logits:
      for task in run.tasks:
        for split in jobs.splits_learnt(run, tasks[task], features):
          rows = features[task][split]
          identity |= processes.run_on_first(
            outside.identity, Path(run.logits), rows, tasks[task], split
          )
    if run.start:
      identity[f'start.{run.start}'] = schema.digest(result[run.start])
    result[run.name] = recorded(run.name, identity)
  return result
