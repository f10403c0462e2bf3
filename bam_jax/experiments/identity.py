"""The identity of a run: everything that decides its outcome.

An identity maps dotted keys to JSON values: the run and the configuration that
it depends on (its settings), its rows, its teachers, and the run that it starts
from. The latter are digests of identities in their turn.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax import schema
from bam_jax.data import shards
from bam_jax.distillation import external
from bam_jax.experiments import run_data
from bam_jax.experiments import runs as runs_lib
from bam_jax.runtime import processes
from bam_jax.tasks import task as task_lib

# Fields that tell where rows or weights come from, or what rows mean. An
# identity holds digests of the rows and the weights instead.
_COVERED_BY_ROWS = ('data.', 'custom_tasks.')
_COVERED_BY_WEIGHTS = (
  'model.init', 'model.if_missing', 'model.arch', 'model.vocab'
)  # fmt: skip

Identity = dict[str, object]


def settings(
  run: runs_lib.Run,
  tasks: task_lib.TaskTable,
  weights: str,
) -> Identity:
  """Returns the part of an identity that is known without reading a row.

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
    # The meaning of the logits, and the metric that chooses a checkpoint.
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


def external_teachers(identity: Identity) -> tuple[str, ...]:
  """Returns the names of the teachers whose external logits a run learnt."""
  found = (
    value
    for key, value in sorted(identity.items())
    if key.startswith('logits.') and key.endswith('.teacher')
  )
  return tuple(dict.fromkeys(found))


def identities(
  runs: Sequence[runs_lib.Run],
  tasks: task_lib.TaskTable,
  weights: str,
  features: Mapping[str, Mapping[str, shards.Columns]],
  recorded: Callable[[str, Identity], Identity],
) -> dict[str, Identity]:
  """Returns the identity of every run by its name.

  Args:
    runs: in the order of a plan.
    tasks: the tasks of the plan.
    weights: digest of the pretrained weights; empty for random ones.
    features: task -> split that runs are trained or scored on -> rows.
    recorded: name and identity of a run -> the identity that its folder holds.

  Raises:
    errors.UserError: external logits are missing or of other rows.
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
        for split in run_data.learnt_splits(run, tasks[task], features):
          rows = features[task][split]
          identity |= processes.run_on_first(
            external.identity, Path(run.logits), rows, tasks[task], split
          )
    if run.start:
      identity[f'start.{run.start}'] = schema.digest(result[run.start])
    result[run.name] = recorded(run.name, identity)
  return result
