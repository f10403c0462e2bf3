"""What is left to do of a plan: steps, examples, rows to be labelled."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses

from bam_jax.experiments import run_data
from bam_jax.experiments import runs as runs_lib
from bam_jax.tasks import task as task_lib

# Runs that differ in seed, or in a fold of the same number.
Kind = tuple[str, tuple[str, ...], str]


@dataclasses.dataclass(frozen=True)
class Work:
  """What is left of one run.

  Attributes:
    run: the run.
    steps: of the whole run.
    done: of these, what its latest checkpoint has.
    trained: whether it is finished, and labels alone are left.
    labels: task and split of the rows that it has yet to label for students.
  """

  run: runs_lib.Run
  steps: int
  done: int
  trained: bool
  labels: tuple[tuple[str, str], ...]

  @property
  def left(self) -> int:
    return 0 if self.trained else self.steps - self.done

  @property
  def examples(self) -> int:
    return self.left * self.run.length.batch_size

  @property
  def kind(self) -> Kind:
    fold = self.run.fold
    part = f'fold {fold.number} of {fold.of}' if fold else ''
    return self.run.variant, self.run.tasks, part

  def dues(self, every: int) -> int:
    """How many of the steps yet to be done, but for the last, are due."""
    if self.trained or not every:
      return 0
    return (self.steps - 1) // every - self.done // every


def of_plan(
  runs: Sequence[runs_lib.Run],
  todo: Sequence[runs_lib.Run],
  tasks: task_lib.TaskTable,
  features: run_data.Features,
  latest_step: Callable[[runs_lib.Run], int],
  is_labelled: Callable[[str, str, str], bool],
) -> list[Work]:
  """What is left of every run of which something is.

  Args:
    runs: the plan.
    todo: those of them that are not finished.
    tasks: the tasks of the plan.
    features: of all of them.
    latest_step: of a run, that it would go on from.
    is_labelled: name of a run, task and split -> whether its logits are there.
  """
  names = {run.name for run in todo}
  result = []
  for run in runs:
    labels = tuple(
      (task, split)
      for task, split in run_data.splits_to_label(run, todo, tasks, features)
      if not is_labelled(run.name, task, split)
    )
    trained = run.name not in names
    if trained and not labels:
      continue
    result.append(
      Work(
        run,
        run_data.num_steps(run, tasks, features),
        0 if trained else latest_step(run),
        trained,
        labels,
      )
    )
  return result
