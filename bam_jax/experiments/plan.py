"""Variants as a graph of runs.

A run trains one model. The paper's variants are made of runs:

  single            one run a task, gold labels
  multi             one run over all tasks, gold labels
  single_to_single  one run a task, taught by `single`
  multi_to_multi    one run over all tasks, taught by `multi`
  single_to_multi   one run over all tasks, taught by `single` (BAM)

A variant of the user's own is like one of these, over part of the tasks or with
some fields changed; its teachers are those of the variant it is like.

With `distill.folds` = k a teacher is k runs, each trained on all rows but those
of a fold, which it labels. They are no part of a variant.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools

from bam_jax import config as config_lib
from bam_jax.data import folds

# variant -> (one run a task?, variant of its teachers)
_VARIANTS: Mapping[str, tuple[bool, str | None]] = {
  'single': (True, None),
  'multi': (False, None),
  'single_to_single': (True, 'single'),
  'multi_to_multi': (False, 'multi'),
  'single_to_multi': (False, 'single'),
}


@dataclasses.dataclass(frozen=True)
class Run:
  """One model to train.

  Attributes:
    name: unique in a plan, and the name of its folder.
    variant: one of `config.variant_names`.
    seed: of initialisation, data order and dropout.
    tasks: names of the tasks trained on.
    teachers: task -> names of the runs whose predictions are joined over folds
      and averaged over seeds; empty where the targets are gold labels alone.
    is_single: trained on one task, with `config.single`.
    config: the whole configuration, with the changes of the variant.
    fold: of the training rows that it leaves out; None: it leaves out none.
  """

  name: str
  variant: str
  seed: int
  tasks: tuple[str, ...]
  teachers: Mapping[str, tuple[str, ...]]
  is_single: bool
  config: config_lib.Config
  fold: folds.Fold | None = None

  @property
  def group(self) -> str:
    """The runs of one variant and seed, which together cover every task."""
    return group_name(self.variant, self.seed) + _suffix(self.fold)

  @property
  def length(self) -> config_lib.RunLengthConfig:
    """Epochs, batch and learning rate of this kind of run."""
    return self.config.single if self.is_single else self.config.multi


def group_name(variant: str, seed: int) -> str:
  return f'{variant}-s{seed}'


def _suffix(fold: folds.Fold | None) -> str:
  return f'-{fold}' if fold else ''


def plan(config: config_lib.Config) -> list[Run]:
  """All runs that the configured variants need, teachers before students.

  Runs of one seed stand together as far as ensembles of teachers allow, so
  that a plan cut short leaves whole seeds behind.
  """
  runs: dict[str, Run] = {}

  def add(variant: str, seed: int, fold: folds.Fold | None = None) -> list[Run]:
    changed = config_lib.of_variant(config, variant)
    own = config.custom_variants.get(variant)
    single, taught_by = _VARIANTS[own.like if own else variant]
    all_tasks = (own and own.tasks) or config.tasks
    teachers: dict[str, list[str]] = {task: [] for task in config.tasks}
    if taught_by:
      for teacher_seed in _teacher_seeds(changed, seed):
        for left_out in _folds(changed, teacher_seed):
          for teacher in add(taught_by, teacher_seed, left_out):
            for task in teacher.tasks:
              teachers[task].append(teacher.name)
    group = group_name(variant, seed)
    parts = (
      [(f'{group}-{task}', (task,)) for task in all_tasks]
      if single
      else [(group, all_tasks)]
    )
    added = [
      Run(
        name=name + _suffix(fold),
        variant=variant,
        seed=seed,
        tasks=tasks,
        teachers={t: tuple(teachers[t]) for t in tasks if teachers[t]},
        is_single=single,
        config=changed,
        fold=fold,
      )
      for name, tasks in parts
    ]
    for run in added:
      runs.setdefault(run.name, run)
    return added

  for seed in config.seeds:
    for variant in config.variants:
      add(variant, seed)
  return list(runs.values())


def _teacher_seeds(config: config_lib.Config, seed: int) -> tuple[int, ...]:
  if config.distill.teachers == 1:
    return (seed,)
  return config.seeds[: config.distill.teachers]


def _folds(config: config_lib.Config, seed: int) -> Sequence[folds.Fold | None]:
  """What the runs that make up a teacher leave out."""
  count = config.distill.folds
  if count == 1:
    return [None]
  return [folds.Fold(number + 1, count, seed) for number in range(count)]


def together(
  runs: Sequence[Run],
  at_once: int,
  step: Callable[[Run], int],
  devices: int = 1,
) -> Iterator[list[Run]]:
  """Groups of runs that one program trains, teachers before students.

  Args:
    runs: those to be trained, teachers before students.
    at_once: runs in a group at most.
    step: where a run stands; asked when its group's turn has come.
    devices: that must divide a group. Runs left over are groups of one, each
      of which all devices train.

  Yields:
    Runs of one variant, of the same tasks and of a fold of the same number that
    stand at the same step.
  """
  left = list(runs)
  while left:
    first, waited_for = left[0], {run.name for run in left}
    at = step(first)
    alike = (
      run
      for run in left
      if (run.variant, run.tasks) == (first.variant, first.tasks)
      # Folds differ by a row, which can make a step more.
      and _suffix(run.fold) == _suffix(first.fold)
      and all(waited_for.isdisjoint(names) for names in run.teachers.values())
      and step(run) == at
    )
    group = list(itertools.islice(alike, at_once))
    group = group[: len(group) // devices * devices or 1]
    yield group
    left = [run for run in left if run not in group]


def tasks_taught_by(runs: Sequence[Run], name: str) -> tuple[str, ...]:
  """The tasks for which some run of the plan is taught by run `name`."""
  tasks = {
    task: None
    for run in runs
    for task, teachers in run.teachers.items()
    if name in teachers
  }
  return tuple(tasks)
