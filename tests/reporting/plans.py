"""Tasks and scores of runs that the tests of this folder share."""

from pathlib import Path

from bam_jax.reporting import scores as scores_lib
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_NOWHERE = Path('/nowhere')


def make_task(name: str, metric: str = 'accuracy', **fields) -> task_lib.Task:
  """A task of two classes, or of scores if the metric is Spearman's."""
  is_regression = metric == 'spearman'
  defaults = {
    'kind': kinds.KINDS['regression' if is_regression else 'classification'],
    'metrics': (metric,),
    'paper_metric': metric,
    'labels': () if is_regression else ('0', '1'),
    'tables': {'train': task_lib.Table(text=('a',), label='label')},
  }
  return task_lib.Task(name=name, **(defaults | fields))


def make_run(
  variant: str, seed: int, task: str, scores: dict, **fields
) -> scores_lib.RunScores:
  """One run's scores of a task; it has neither a log nor outputs."""
  defaults = {
    'curve': _NOWHERE / 'metrics.jsonl',
    'outputs': _NOWHERE / 'outputs.npz',
    'quality': {},
    'share': None,
  }
  return scores_lib.RunScores(
    variant, seed, task, scores, **(defaults | fields)
  )
