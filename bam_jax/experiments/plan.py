"""Variants as a graph of runs.

A run trains one model. The paper's variants are made of runs:

  single            one run a task, gold labels
  multi             one run over all tasks, gold labels
  single_to_single  one run a task, taught by `single`
  multi_to_multi    one run over all tasks, taught by `multi`
  single_to_multi   one run over all tasks, taught by `single` (BAM)

A variant of the user's own is like one of these, over part of the tasks or with
some fields changed; its teachers are those of the variant it is like.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools

from bam_jax import config as config_lib

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
    teachers: task -> names of the runs whose predictions are averaged; empty
      where the targets are gold labels alone.
    is_single: trained on one task, with `config.single`.
    config: the whole configuration, with the changes of the variant.
  """

  name: str
  variant: str
  seed: int
  tasks: tuple[str, ...]
  teachers: Mapping[str, tuple[str, ...]]
  is_single: bool
  config: config_lib.Config

  @property
  def group(self) -> str:
    """The runs of one variant and seed, which together cover every task."""
    return group_name(self.variant, self.seed)

  @property
  def length(self) -> config_lib.RunLengthConfig:
    """Epochs, batch and learning rate of this kind of run."""
    return self.config.single if self.is_single else self.config.multi


def group_name(variant: str, seed: int) -> str:
  return f'{variant}-s{seed}'


def plan(config: config_lib.Config) -> list[Run]:
  """All runs that the configured variants need, teachers before students.

  Runs of one seed stand together as far as ensembles of teachers allow, so
  that a plan cut short leaves whole seeds behind.
  """
  runs: dict[str, Run] = {}

  def add(variant: str, seed: int) -> list[Run]:
    own = config.custom_variants.get(variant)
    single, taught_by = _VARIANTS[own.like if own else variant]
    all_tasks = (own and own.tasks) or config.tasks
    teachers: dict[str, list[str]] = {task: [] for task in config.tasks}
    if taught_by:
      for teacher_seed in _teacher_seeds(config, seed):
        for teacher in add(taught_by, teacher_seed):
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
        name=name,
        variant=variant,
        seed=seed,
        tasks=tasks,
        teachers={t: tuple(teachers[t]) for t in tasks if teachers[t]},
        is_single=single,
        config=config_lib.of_variant(config, variant),
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
    Runs of one variant and of the same tasks that stand at the same step.
  """
  left = list(runs)
  while left:
    first, waited_for = left[0], {run.name for run in left}
    at = step(first)
    alike = (
      run
      for run in left
      if (run.variant, run.tasks) == (first.variant, first.tasks)
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
