"""Variants as a graph of runs.

A run trains one model: what the runs of each variant are, `bam_jax.variants`
says. A run is taught by others, or goes on from one; those come first.

With `distill.folds` = k a teacher is k runs, each trained on all rows but those
of a fold, which it labels. They are no part of a variant. A teacher that is
itself taught knows the fold's labels at second hand: those who taught it left
out other folds, each its own.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
from types import MappingProxyType
from typing import NamedTuple

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import schema
from bam_jax import variants
from bam_jax.data import folds


class Choice(NamedTuple):
  """Values of `config.single` that a search chose for a task."""

  learning_rate: float
  layer_decay: float

  @property
  def label(self) -> str:
    """As part of a run's name: other values, another name."""
    return f'lr{self.learning_rate!r}-decay{self.layer_decay!r}'

  def applied(self, config: config_lib.Config) -> config_lib.Config:
    """The configuration with these values for single-task runs."""
    single = dataclasses.replace(config.single, **self._asdict())
    return dataclasses.replace(config, single=single)


@dataclasses.dataclass(frozen=True)
class Run:
  """One model to train.

  Attributes:
    name: unique in a plan, and the name of its folder.
    variant: one of `config.variant_names`, or `variants.SEARCH`.
    seed: of initialisation, data order and dropout.
    tasks: names of the tasks trained on.
    teachers: task -> names of the runs whose predictions are joined over folds
      and averaged over seeds; empty where the targets are gold labels alone.
    start: name of the run from whose last parameters it starts; empty: from
      the pretrained encoder.
    is_single: trained on one task, with `config.single`.
    config: the whole configuration, with what a search chose for the task and
      the changes of the variant.
    choices: task -> what a search chose for it, where this run or one that it
      builds on was trained with that.
    fold: of the training rows that it leaves out; None: it leaves out none.
    logits: folder of the sets that teach in place of runs; empty: none.
  """

  name: str
  variant: str
  seed: int
  tasks: tuple[str, ...]
  teachers: Mapping[str, tuple[str, ...]]
  start: str
  is_single: bool
  config: config_lib.Config
  choices: Mapping[str, Choice]
  fold: folds.Fold | None = None
  logits: str = ''

  @property
  def is_taught(self) -> bool:
    """Whether the targets slide from teachers' to the gold labels."""
    return bool(self.teachers or self.logits)

  @property
  def builds_on(self) -> set[str]:
    """Names of the runs that must be finished before this one."""
    names = {name for names in self.teachers.values() for name in names}
    return names | {self.start} - {''}

  @property
  def learns_unlabelled(self) -> bool:
    """Whether it is trained on rows without labels, where a task has some."""
    return self.is_taught and self.config.distill.unlabelled

  @property
  def group(self) -> str:
    """The runs of one variant and seed, which together cover every task."""
    return group_name(self.variant, self.seed, self.fold)

  @property
  def length(self) -> config_lib.RunLengthConfig:
    """Epochs, batch and learning rate of this kind of run."""
    return self.config.single if self.is_single else self.config.multi


def group_name(variant: str, seed: int, fold: folds.Fold | None = None) -> str:
  """What --group names: all runs of a variant, a seed and a fold."""
  return f'{variant}-s{seed}{_part(fold)}'


def _part(fold: folds.Fold | None) -> str:
  """As part of a name; the same for all seeds."""
  return f'-{fold}' if fold else ''


def plan(
  config: config_lib.Config,
  choices: Mapping[str, Choice] = MappingProxyType({}),
) -> list[Run]:
  """All runs that the configured variants need, in the order of training.

  Runs of one seed stand together as far as ensembles of teachers allow, so
  that a plan cut short leaves whole seeds behind.

  Args:
    config: of a shard: the runs that its seeds need.
    choices: task -> what a search chose for its single-task runs.

  Raises:
    errors.UserError: two runs would have one name.
  """
  groups: dict[str, list[Run]] = {}

  def add(variant: str, seed: int, fold: folds.Fold | None = None) -> list[Run]:
    group = group_name(variant, seed, fold)
    if group in groups:
      return groups[group]
    found = variants.variant(config, variant)
    own = config_lib.of_variant(config, variant)
    teachers: dict[str, list[Run]] = {task: [] for task in config.tasks}
    if found.teacher and not variants.outside(config, variant):
      for teacher_seed in _teacher_seeds(own, seed):
        for left_out in _folds(own, teacher_seed):
          for run in add(found.teacher, teacher_seed, left_out):
            for task in run.tasks:
              teachers[task].append(run)
    starts = {}
    if found.start:
      # One that has not seen the fold either.
      before = add(found.start, seed, fold)
      starts = {t: run for run in before for t in run.tasks}
    groups[group] = [
      _make_run(config, variant, seed, fold, tasks, teachers, starts, choices)
      for tasks in (
        [(task,) for task in found.tasks] if found.is_single else [found.tasks]
      )
    ]
    return groups[group]

  for seed in config_lib.seeds_of_shard(config):
    for variant in config.variants:
      add(variant, seed)
  runs = list(itertools.chain(*groups.values()))
  _check_names(runs)
  return runs


def _check_names(runs: Sequence[Run]) -> None:
  """Raises if two runs would have one folder.

  A task may have a name that ends like the name of another task's fold.
  """
  by_name: dict[str, Run] = {}
  for run in runs:
    # Some file systems don't tell capital letters from small ones.
    other = by_name.setdefault(run.name.lower(), run)
    if other is not run:
      raise errors.UserError(
        f'config.tasks: a run of {", ".join(other.tasks)} and one of'
        f' {", ".join(run.tasks)} would both be named {run.name}; give either'
        ' task another name'
      )


def _make_run(
  config: config_lib.Config,
  variant: str,
  seed: int,
  fold: folds.Fold | None,
  tasks: tuple[str, ...],
  teachers: Mapping[str, Sequence[Run]],
  starts: Mapping[str, Run],
  choices: Mapping[str, Choice],
) -> Run:
  """A run of a variant; what it builds on is given by task."""
  is_single = variants.variant(config, variant).is_single
  name = group_name(variant, seed)
  depends: dict[str, Choice] = {}
  for task in tasks:
    for run in (*teachers[task], *([starts[task]] if starts else [])):
      depends |= run.choices
  if is_single:
    (task,) = tasks
    name = f'{name}-{task}'
    if task in choices:
      config = choices[task].applied(config)
      depends[task] = choices[task]
  return Run(
    name=name + _part(fold) + _suffix(depends),
    variant=variant,
    seed=seed,
    tasks=tasks,
    teachers={
      task: tuple(run.name for run in teachers[task])
      for task in tasks
      if teachers[task]
    },
    start=starts[tasks[0]].name if starts else '',
    is_single=is_single,
    config=config_lib.of_variant(config, variant),
    choices=depends,
    fold=fold,
    logits=variants.outside(config, variant),
  )


def _suffix(choices: Mapping[str, Choice]) -> str:
  """What tells a run's name from that of the same run after other choices."""
  if len(choices) > 1:
    return f'-{schema.digest(choices)[:8]}'
  return ''.join(f'-{choice.label}' for choice in choices.values())


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
  """Groups of runs that one program trains, in an order that can be trained.

  Args:
    runs: those to be trained, in the order of a plan.
    at_once: runs in a group at most.
    step: where a run stands; asked when its group's turn has come.
    devices: that must divide a group. Runs left over are groups of one, each
      of which all devices train.

  Yields:
    Runs that differ in their seed alone, or in a fold of the same number, and
    stand at the same step.
  """
  left = list(runs)
  while left:
    first, waited_for = left[0], {run.name for run in left}
    at = step(first)
    alike = (
      run
      for run in left
      if (run.variant, run.tasks, run.config)
      == (first.variant, first.tasks, first.config)
      # Folds differ by a row, which can make a step more.
      and _part(run.fold) == _part(first.fold)
      and waited_for.isdisjoint(run.builds_on)
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
