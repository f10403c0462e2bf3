"""Restores a checkpoint whose table of heads was made for other tasks.

The table has one row per task of `config.tasks`, and every row is as wide as
the widest head. So a new task can change the shape of the table and the rows of
the other tasks.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from bam_jax import errors
from bam_jax.tasks import task as task_lib
from bam_jax.training import checkpoints as checkpoints_lib
from bam_jax.training import mesh as mesh_lib

Tables = Mapping[str, np.ndarray]


def restore(
  saved: checkpoints_lib.Checkpoints,
  like: Mapping[str, object],
  step: int,
  tasks: task_lib.TaskTable,
  before: Sequence[str],
  own: Sequence[str],
) -> dict[str, object]:
  """Restores a step's parameters; moves each head to its task's current row.

  Args:
    saved: checkpoints of a run.
    like: shapes and shardings of the model's parameters.
    step: the step to restore.
    tasks: tasks of the current model, which gets the restored parameters.
    before: names of the tasks of the saved model, in the order of its heads.
    own: names of the tasks that the run was trained on.

  Raises:
    errors.UserError: see `Checkpoints.restore_params` and `move`.
  """
  shapes = saved.param_shapes(step)
  mesh = like['heads']['bias'].sharding.mesh
  heads = {
    name: jax.ShapeDtypeStruct(
      shapes.get(f'heads/{name}', leaf.shape),
      leaf.dtype,
      sharding=mesh_lib.replicated(mesh),
    )
    for name, leaf in like['heads'].items()
    if name != 'pair_kernel' or f'heads/{name}' in shapes
  }
  found = saved.restore_params({**like, 'heads': heads}, step)
  empty = {k: np.zeros(v.shape, v.dtype) for k, v in like['heads'].items()}
  moved = move(mesh_lib.fetch(found['heads']), empty, tasks, before, own)
  return {
    **found,
    'heads': {
      name: mesh_lib.place(table, like['heads'][name].sharding)
      for name, table in moved.items()
    },
  }


def move(
  tables: Tables,
  into: Tables,
  tasks: task_lib.TaskTable,
  before: Sequence[str],
  own: Sequence[str],
) -> Tables:
  """Copies the heads of the tasks `own` from old tables to new tables.

  Args:
    tables: old tables in the order of `before`, for T tasks, of which P are
      pair tasks: `kernel` [T, D, C], `bias` [T, C] and, if P > 0, `pair_kernel`
      [P, 3 D, C]. D is the length of the encoder's vectors, and C is the number
      of outputs of the widest head.
    into: new tables in the order of `tasks`; changed in place and returned.
    tasks, before, own: see `restore`.

  Raises:
    errors.UserError: the config lacks some pair tasks of the old tables, so it
      is unknown which row of `pair_kernel` belongs to which task.
  """
  for name in own:
    old, new = before.index(name), tasks.index[name]
    width = tasks[name].num_outputs
    for key in ('kernel', 'bias'):
      into[key][new, ..., :width] = tables[key][old, ..., :width]
    if not tasks[name].is_bi_encoder:
      continue
    pairs = [n for n in before if n in tasks.index and tasks[n].is_bi_encoder]
    if len(tables.get('pair_kernel', ())) != len(pairs):
      raise errors.UserError(
        f'config.tasks: the checkpoint of {name} has heads of other pair tasks;'
        f' use the tasks that it was trained with, {", ".join(before)}'
      )
    new = tasks.bi_encoder_heads.index(new)
    own_table = tables['pair_kernel'][pairs.index(name), ..., :width]
    into['pair_kernel'][new, ..., :width] = own_table
  return into
