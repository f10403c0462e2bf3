"""Tasks that the tests of this folder share."""

from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib


def make_task(name: str, kind: str, metric: str, **fields) -> task_lib.Task:
  """A task with one metric and a training file of one text a row."""
  return task_lib.Task(
    name,
    kinds.KINDS[kind],
    (metric,),
    metric,
    {'train': task_lib.Table(text=('a',), label='label')},
    **fields,
  )
