"""Plans the training runs that a configuration needs.

A run comes after the runs that teach it, and after the run whose parameters it
starts from. `bam_jax.variants` defines which runs these are.

With `distill.folds` = k, a teacher consists of k runs. Each of the k runs is
trained on all rows except one fold, and labels that fold. The report does not
score these runs. A teacher that is itself taught may know a left-out label
indirectly, because its own teachers may have been trained on that label.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import itertools
from types import MappingProxyType
from typing import NamedTuple

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import schema
from bam_jax import variants
from bam_jax.data import folds

# A run with fewer steps gets a warning.
FEW_STEPS = 50

# Name of a run in the work directory -> its tasks; None if there is no such run
TrainedTasks = Callable[[str], list[str] | None]


class Choice(NamedTuple):
  """Settings that the search tries for a run; None or '' if not searched.

  All settings except `changes_of` are fields of `config.single` or
  `config.multi`. `changes_of` is the name of a variant. The `changes` of that
  variant are applied first, then the other settings.
  """

  learning_rate: float
  layer_decay: float
  epochs: float | None = None
  batch_size: int | None = None
  changes_of: str = ''

  def values(self) -> dict[str, object]:
    """Returns the searched settings by name."""
    return {k: v for k, v in self._asdict().items() if v not in (None, '')}

  @property
  def label(self) -> str:
    """The settings as a suffix for the name of a run."""
    short = {'learning_rate': 'lr', 'layer_decay': 'decay'}
    short |= {'epochs': 'epochs', 'batch_size': 'batch', 'changes_of': 'as_'}
    return '-'.join(f'{short[k]}{v}' for k, v in self.values().items())

  def apply(
    self, config: config_lib.Config, is_single: bool
  ) -> config_lib.Config:
    """Returns a copy of the config with these settings applied."""
    config = config_lib.config_for_variant(config, self.changes_of)
    key = 'single' if is_single else 'multi'
    values = self.values()
    values.pop('changes_of', None)
    length = dataclasses.replace(getattr(config, key), **values)
    return dataclasses.replace(config, **{key: length})


def choice_key(is_single: bool, tasks: Sequence[str]) -> str:
  """Returns the key of the search's choice for runs of these tasks.

  >>> choice_key(True, ['rte']), choice_key(False, ['rte', 'mrpc'])
  ('rte', 'multi: rte, mrpc')
  """
  return tasks[0] if is_single else f'multi: {", ".join(tasks)}'


@dataclasses.dataclass(frozen=True)
class Run:
  """A planned training run, which trains one model.

  Attributes:
    name: name of the run and of its folder; unique in a plan.
    variant: one of `config.variant_names`, `variants.SEARCH` or `SEARCH_MULTI`.
    seed: seed of initialisation, data order and dropout.
    tasks: names of the tasks that the run is trained on.
    teachers: task -> names of the runs that teach this task. Their predictions
      are joined over folds and averaged over seeds. Empty without teacher runs.
    start: name of the run whose last parameters this run starts from; empty: it
      starts from the pretrained encoder.
    is_single: whether the run is trained on one task, with `config.single`.
    config: the whole configuration, with the search's choice for the task and
      the changes of the variant applied.
    choices: `choice_key` -> settings that the search chose. It holds only the
      settings that this run, or a run that it builds on, is trained with.
    fold: the training rows that are left out; None: no fold is left out. A run
      of the search is scored on the left-out rows.
    logits: folder of the external logits that teach the run, if it is not
      taught by other runs; empty: no external logits.
    task_sets: digests at the end of the run's name. If a run of other tasks
      already has the name of this run, or of a run that it builds on, a digest
      of the task names makes the name unique.
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
  fold: folds.Fold | folds.HeldOut | None = None
  logits: str = ''
  task_sets: tuple[str, ...] = ()

  @property
  def is_search(self) -> bool:
    """Whether the run tries values for `config.search`."""
    return isinstance(self.fold, folds.HeldOut)

  @property
  def held_out(self) -> folds.HeldOut | None:
    """Training rows on which the best step is chosen; None without patience."""
    search = self.config.search
    if not self.length.patience:
      return None
    return folds.HeldOut(search.held_out, search.max_held_out)

  @property
  def is_taught(self) -> bool:
    """Whether the run's targets include teachers' predictions."""
    return bool(self.teachers or self.logits)

  @property
  def builds_on(self) -> set[str]:
    """Names of the runs that must be finished before this one starts."""
    names = {name for names in self.teachers.values() for name in names}
    return names | {self.start} - {''}

  @property
  def learns_unlabelled(self) -> bool:
    """Whether the run is also trained on rows without labels."""
    return self.is_taught and self.config.distill.unlabelled

  @property
  def group(self) -> str:
    """Name of the run's group: all runs of one variant, seed and fold."""
    return group_name(self.variant, self.seed, self.fold)

  @property
  def length(self) -> config_lib.RunLengthConfig:
    """Number of epochs, batch size and learning rate of the run."""
    return self.config.single if self.is_single else self.config.multi

  def field_path(self, name: str) -> str:
    """Returns the path of a run-length field, such as `config.multi.epochs`."""
    group = 'single' if self.is_single else 'multi'
    return variants.field_path(self.config, self.variant, f'{group}.{name}')

  def is_short(self, steps: int) -> bool:
    """Returns whether so few steps may leave the heads nearly untrained.

    False for heads that start as linear probes, which are fitted before step 1.
    """
    return steps < FEW_STEPS and self.config.model.head_init != 'linear_probe'

  def how_to_lengthen(self, steps: int) -> str:
    """Names the options that make a run of so few steps longer."""
    most = self.length.max_steps
    if self.length.patience:
      return f'raise {self.field_path("patience")} or the number of steps'
    if 0 < most <= steps:
      return f'raise {self.field_path("max_steps")}'
    # `min_steps` above `max_steps` would be refused.
    raised = f'{self.field_path("max_steps")} and ' * (0 < most < FEW_STEPS)
    return f'set {raised}{self.field_path("min_steps")} to {FEW_STEPS} or more'


def steps_taken(record: Mapping[str, object]) -> int:
  """Returns how many steps a finished run was trained for."""
  return record.get('stopped_at', record['steps'])


def group_name(variant: str, seed: int, fold: folds.Fold | None = None) -> str:
  """Returns the group name that all runs of a variant, seed and fold share."""
  return f'{variant}-s{seed}' + (f'-{fold}' if fold else '')


def name_for_tasks(
  name: str, tasks: Sequence[str], trained_tasks: TrainedTasks
) -> str:
  """Returns the digest to add to a run's name, or '' if none is needed.

  A digest is needed if the work directory has a run of this name with other
  tasks, for example after a change of `config.tasks`; that run keeps its
  folder. It is also needed if the work directory already has a run whose name
  includes the digest.
  """
  digest = schema.digest(tasks)[:8]
  is_other = trained_tasks(name) not in (None, list(tasks))
  if is_other or trained_tasks(f'{name}-{digest}') is not None:
    return digest
  return ''


def plan_runs(
  config: config_lib.Config,
  choices: Mapping[str, Choice] = MappingProxyType({}),
  trained_tasks: TrainedTasks = lambda name: None,
) -> list[Run]:
  """Returns all runs that the configured variants need, in training order.

  Runs of one seed are adjacent as far as ensembles of teachers allow. So an
  interrupted plan has finished whole seeds.

  Args:
    config: the configuration. With a shard, only the runs for its seeds are
      planned.
    choices: `choice_key` -> settings that the search chose.
    trained_tasks: returns the tasks of the run of a given name in the work
      directory; None: there is no such run.

  Raises:
    errors.UserError: two runs would have the same name.
  """
  groups: dict[str, list[Run]] = {}
  searched = variants.searched(config)

  def add(variant: str, seed: int, fold: folds.Fold | None = None) -> list[Run]:
    """Plans the runs of a group, after the runs that they depend on."""
    group = group_name(variant, seed, fold)
    if group in groups:
      return groups[group]
    found = variants.resolve(config, variant)
    distill = config_lib.config_for_variant(config, variant).distill
    earlier: list[Run] = []
    if found.teacher and not variants.find_external_logits(config, variant):
      seeds = config.seeds if distill.teachers > 1 else (seed,)
      for teacher_seed in seeds[: distill.teachers]:
        if distill.folds == 1:
          earlier += add(found.teacher, teacher_seed)
          continue
        for number in range(1, distill.folds + 1):
          left_out = folds.Fold(number, distill.folds, teacher_seed)
          earlier += add(found.teacher, teacher_seed, left_out)
    # The run to start from must leave out the same fold.
    starts = add(found.start, seed, fold) if found.start else []
    groups[group] = [
      _make_run(
        *(config, variant, seed, fold, tasks, earlier, starts),
        choices if variant in searched else {},
        trained_tasks,
      )
      for tasks in (
        [(task,) for task in found.tasks] if found.is_single else [found.tasks]
      )
    ]
    return groups[group]

  for seed in config_lib.seeds_of_shard(config):
    for variant in config.variants:
      add(variant, seed)
  runs = list(itertools.chain(*groups.values()))
  by_name: dict[str, Run] = {}
  for run in runs:
    # A task name may end like the name of a fold, and some file systems ignore
    # case, so two runs may share a folder.
    other = by_name.setdefault(run.name.lower(), run)
    if other is not run:
      raise errors.UserError(
        f'config.tasks: the run that trains {", ".join(other.tasks)} and the'
        f' one that trains {", ".join(run.tasks)} would share the name'
        f' {run.name}; rename a task'
      )
  return runs


def _make_run(
  config: config_lib.Config,
  variant: str,
  seed: int,
  fold: folds.Fold | None,
  tasks: tuple[str, ...],
  teachers: Sequence[Run],
  starts: Sequence[Run],
  choices: Mapping[str, Choice],
  trained_tasks: TrainedTasks,
) -> Run:
  is_single = variants.resolve(config, variant).is_single
  by_task = {t: [run for run in teachers if t in run.tasks] for t in tasks}
  starts = [run for run in starts if tasks[0] in run.tasks]
  depends: dict[str, Choice] = {}
  task_sets: set[str] = set()
  for run in itertools.chain(*by_task.values(), starts):
    depends |= run.choices
    task_sets.update(run.task_sets)
  name = group_name(variant, seed)
  if is_single:
    name += f'-{tasks[0]}'
  key = choice_key(is_single, tasks)
  if key in choices:
    config = choices[key].apply(config, is_single)
    depends[key] = choices[key]
  if fold:
    name += f'-{fold}'
  if len(depends) > 1:
    values = {key: [*each.values().values()] for key, each in depends.items()}
    name += f'-{schema.digest(values)[:8]}'
  elif depends:
    (choice,) = depends.values()
    name += f'-{choice.label}'
  # The name of a single-task run already contains its task.
  if not is_single:
    task_sets |= {name_for_tasks(name, tasks, trained_tasks)} - {''}
  return Run(
    name='-'.join([name, *sorted(task_sets)]),
    variant=variant,
    seed=seed,
    tasks=tasks,
    teachers={
      task: tuple(run.name for run in found)
      for task, found in by_task.items()
      if found
    },
    start=starts[0].name if starts else '',
    is_single=is_single,
    config=config_lib.config_for_variant(config, variant),
    choices=depends,
    fold=fold,
    logits=variants.find_external_logits(config, variant),
    task_sets=tuple(sorted(task_sets)),
  )


def group_runs(
  runs: Sequence[Run],
  max_size: int,
  latest_step: Callable[[Run], int],
  num_devices: int = 1,
) -> Iterator[list[Run]]:
  """Groups runs that one XLA program can train together, in training order.

  Args:
    runs: the runs to be trained, in the order of a plan.
    max_size: largest number of runs in a group.
    latest_step: returns the step that a run continues from; called just before
      the group is yielded.
    num_devices: if a group has several runs, their number is a multiple of
      `num_devices`.

  Yields:
    Lists of runs. The runs of a list are at the same step. They differ only in
    their seed, and in the seed of the fold that they leave out.
  """
  left = list(runs)
  while left:
    first, unfinished = left[0], {run.name for run in left}
    step = latest_step(first)
    similar = (
      run
      for run in left
      if (run.variant, run.tasks, run.config)
      == (first.variant, first.tasks, first.config)
      # Two folds may differ by a row, and so by a training step.
      and str(run.fold) == str(first.fold)
      and unfinished.isdisjoint(run.builds_on)
      and latest_step(run) == step
    )
    group = list(itertools.islice(similar, max_size))
    group = group[: len(group) // num_devices * num_devices or 1]
    yield group
    left = [run for run in left if run not in group]


def describe_short_runs(runs: Iterable[tuple[Run, int]]) -> list[str]:
  """Returns a warning for each variant with runs of too few steps.

  The warning names the tasks, the number of steps (the fewest over seeds) and
  the option that makes the runs longer. `runs` has pairs of a run and its
  number of steps.
  """
  steps: dict[tuple[str, str], dict[str, int]] = {}
  for run, count in runs:
    if run.is_short(count):
      remedy = run.how_to_lengthen(count)
      of_tasks = steps.setdefault((run.variant, remedy), {})
      tasks = ' + '.join(run.tasks) + ' without a fold' * bool(run.fold)
      of_tasks[tasks] = min(count, of_tasks.get(tasks, count))
  return [
    f'{variant}: fewer than {FEW_STEPS} training steps, of'
    f' {", ".join(f"{tasks} ({n})" for tasks, n in of_tasks.items())}; {remedy}'
    for (variant, remedy), of_tasks in steps.items()
  ]


def describe_lengthened_runs(
  runs: Iterable[tuple[Run, tuple[int, str]]],
) -> list[str]:
  """Describes runs that `min_steps` or `min_passes` makes longer.

  `runs` has pairs of a run and the result of `PlanData.decide_steps`.
  """
  found: dict[str, dict[str, list[int]]] = {}
  for run, (steps, field) in runs:
    if field != 'epochs':
      setting = f'{run.field_path(field)}={getattr(run.length, field):g}'
      found.setdefault(setting, {}).setdefault(run.variant, []).append(steps)
  return [
    f'{setting} makes more steps than the epochs do: '
    + ', '.join(
      f'{variant} {" to ".join(map(str, sorted({min(n), max(n)})))}'
      for variant, n in by_variant.items()
    )
    for setting, by_variant in found.items()
  ]
