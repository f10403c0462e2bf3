"""Looks up or creates the tasks that a configuration names."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import difflib
import re

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import plain_text
from bam_jax.data import formats
from bam_jax.data import sources
from bam_jax.tasks import class_weights
from bam_jax.tasks import demo
from bam_jax.tasks import glue
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import kinds
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib

# A name is part of uids (which use '/' and '~'), file names and config keys.
_NAME = re.compile(r'[A-Za-z0-9_-]+')
# Names that tasks can't have, and what the program uses each of them for.
RESERVED = {
  'all': 'of the folder that an export of several tasks goes to',
  'average': 'of the column of averages in a report',
}
_LONGEST_SEPARATOR = 8  # Characters.
_HOW_MANY = {(1, 2): 'one, or two for pairs', (1,): 'one', (0,): 'none'}


def resolve(config: config_lib.Config) -> task_lib.TaskTable:
  """Returns the tasks of a configuration, in the order of `config.tasks`.

  Names are looked up among the GLUE tasks, the demo tasks and
  `config.custom_tasks`. Every custom task is checked, even if it is not used.
  If a task's labels are to be inferred, `Task.labels` is still empty; see
  `labels.find`.

  Raises:
    errors.UserError: a name is unknown, a custom task has a mistake, another
      field (such as `data.swap`) does not fit a task, or GLUE tasks have no
      folder to read from.
  """
  known = glue.TASKS | demo.TASKS
  custom = {n: _custom(n, task) for n, task in config.custom_tasks.items()}
  known |= custom
  for name, file in config_lib.unlabelled_files(config).items():
    if name in known:
      known[name] = _with_unlabelled(known[name], file, name in custom)
  model = config.model
  tasks = []
  for name in config.tasks:
    task = _find(name, known)
    task = task.with_head(model.regression_head, model.regression_loss)
    if name in config.data.bi_encoder:
      task = dataclasses.replace(task, is_bi_encoder=True)
    tasks.append(task)
  table = task_lib.TaskTable(tuple(tasks))
  errors.raise_first(_misuses(config, table))
  return table


def _misuses(
  config: config_lib.Config, table: task_lib.TaskTable
) -> Iterator[str]:
  """Yields mistakes in the names of tasks, and fields that don't fit a task."""
  by_name: dict[str, str] = {}
  for name in table.names:
    other = by_name.setdefault(name.lower(), name)
    if other != name:
      yield (
        f'config.tasks: {other!r} and {name!r} differ only in capital letters,'
        ' and would share a folder on some file systems; rename either'
      )
  for field in ('swap', 'bi_encoder'):
    for name in getattr(config.data, field):
      task, where = table[name], f'config.data.{field}: {name!r}'
      if not task.is_pair or task.kind.per_token:
        what = 'has one text a row' if not task.is_pair else f'is {task.kind}'
        yield f'{where} {what}; leave it out, or name a task of text pairs'
      if task.windows:
        yield (
          f'{where} is read in windows, which do not work with {field}; leave'
          f' it out, or remove config.custom_tasks.{name}.windows'
        )
  yield from threshold_mistakes(config, table)
  official = [name for name in table.names if name in glue.TASKS]
  if config.data.source == 'tsv' and not config.data.dir and official:
    yield (
      f'config.data.dir is empty but {official[0]!r} is read from it; set it'
      f' to the folder of the GLUE files ({sources.HOW_TO_GET_GLUE})'
    )


def threshold_mistakes(
  config: config_lib.Config, table: task_lib.TaskTable
) -> Iterator[str]:
  """Yields mistakes in `config.decisions.thresholds`.

  Tasks whose labels are not yet known may have a threshold.
  """
  for name, metric in config_lib.thresholds(config).items():
    task, where = table[name], f"config.decisions.thresholds: '{name}={metric}'"
    kind = task.kind
    is_open = kind.infers_labels and not task.labels
    has_two = kind.one_class and (is_open or len(task.labels) == 2)
    if not kind.decides_each_label and not has_two:
      yield (
        f'{where}: only tasks with two labels and multilabel tasks have a'
        ' threshold; remove it'
      )
    chosen = [
      name
      for name in kind.metrics
      if not metrics.METRICS[name].takes_class_scores
    ]
    yield from errors.find_unknown(where, [metric], chosen)


def _find(name: str, known: Mapping[str, task_lib.Task]) -> task_lib.Task:
  """Returns a task by its name, or raises an error with the nearest name."""
  if name in known:
    return known[name]
  if several := errors.describe_list(name, known):
    raise errors.UserError(f'config.tasks: {name!r} is {several}')
  near = difflib.get_close_matches(name, known, 1, 0.0)[0]
  raise errors.UserError(
    f'config.tasks: {name!r} is not a task; the nearest is {near!r}, and your'
    ' own are declared under config.custom_tasks'
  )


def _custom(name: str, config: config_lib.TaskConfig) -> task_lib.Task:
  """Creates a task from an entry of `config.custom_tasks`."""
  where = f'config.custom_tasks.{name}'
  errors.raise_first(f'{where}{each}' for each in _mistakes(name, config))
  kind = kinds.KINDS[config.kind]
  names = config.metrics or kind.default_metrics
  text, label = kind.columns or (
    tuple(_column(config, f'{where}.text', item) for item in config.text),
    _column(config, f'{where}.label', config.label),
  )
  table = task_lib.Table(
    text=text,
    label=label,
    header=config.header,
    format=config.format,
    no_label=config.no_label,
    holds=kind.holds,
    takes_list=kind.takes_list,
  )
  train = _with_files(table, config.train)
  dev = _with_files(table, config.dev)
  if config.dev_share:
    group = None
    if config.dev_group:
      group = _column(config, f'{where}.dev_group', config.dev_group)
    division = task_lib.Division(
      config.dev_share, config.dev_seed, by_group=group is not None
    )
    train = dataclasses.replace(train, division=division, group=group)
    dev = dataclasses.replace(train, is_development=True)
  tables = {'train': train, 'dev': dev}
  if config.test:
    table = dataclasses.replace(table, label=None, no_label=())
    tables['test'] = _with_files(table, config.test)
  # The paper reports Spearman for its only regression task.
  is_default = not config.metrics and 'spearman' in names
  paper_metric = 'spearman' if is_default else names[0]
  return task_lib.Task(
    name=name,
    kind=kind,
    metrics=names,
    paper_metric=paper_metric,
    in_average=paper_metric not in metrics.OWN_SCALE,
    tables=tables,
    labels=config.labels,
    scale=config.scale,
    separator=config.separator,
    class_weights=config.class_weights,
    stride=config.stride,
    windows=config.windows,
    unanswerable=config.unanswerable,
    test_splits=('test',) if config.test else (),
  )


def _with_files(
  table: task_lib.Table, files: str | tuple[str, ...]
) -> task_lib.Table:
  first, *more = (files,) if isinstance(files, str) else files
  return dataclasses.replace(table, file=first, more_files=tuple(more))


def _mistakes(name: str, config: config_lib.TaskConfig) -> Iterator[str]:
  """Yields the mistakes in a user's task declaration, as `.FIELD: reason`."""
  yield from errors.find_unknown('.kind', [config.kind], kinds.KINDS)
  kind = kinds.KINDS[config.kind]
  if name in glue.TASKS | demo.TASKS:
    yield f': {name!r} is a task of the package; give yours another name'
  if not _NAME.fullmatch(name):
    yield f': {name!r} is not a task name; use letters, digits, _ and - only'
  # Some file systems ignore case.
  if use := RESERVED.get(name.lower()):
    yield f': {name!r} is the name {use}; give the task another'
  if len(config.text) not in kind.num_texts:
    columns = f'{config.text} names {len(config.text)} columns'
    yield f'.text: {columns}; give {_HOW_MANY[kind.num_texts]}'
  if not config.train:
    yield '.train: empty; give a file, below config.data.dir or absolute'
  if not config.dev and not config.dev_share:
    yield (
      '.dev: empty; give a file, below config.data.dir or absolute, or a'
      ' dev_share of the training rows'
    )
  if config.dev and config.dev_share:
    share = f'{config.dev_share:g} is given besides dev'
    yield f'.dev_share: {share}; leave one of them out'
  if config.dev_group and not config.dev_share:
    yield '.dev_group: needs dev_share; give that too, or leave it out'
  if both := sorted({*config.no_label} & {*config.labels}):
    yield (
      f'.no_label: {both[0]!r} is one of the labels too; remove it from one of'
      ' the two'
    )
  if config.no_label and kind.per_token:
    yield f'.no_label: {kind} rows have no single label; leave it out'
  yield from errors.find_unknown('.format', [config.format], formats.FORMATS)
  if formats.FORMATS[config.format].like not in kind.formats:
    allowed = ' or '.join(kind.formats)
    yield (
      f'.format: a {kind} task cannot be read from {config.format!r}; give'
      f' {allowed}'
    )
  if config.dev_group and formats.FORMATS[config.format].columns == 'numbered':
    yield f'.dev_group: {config.format} has no column of groups; leave it out'
  if config.windows and not kind.joins_windows:
    joined = ', '.join(k.name for k in kinds.KINDS.values() if k.joins_windows)
    yield f'.windows: is only for {joined}, not for {kind}; leave it out'
  if config.stride and kind.joins_windows and not config.windows:
    yield (
      ".stride: has no effect without windows; set windows='mean' or 'max', or"
      ' leave it out'
    )
  for other in kinds.KINDS.values():
    given = {field for field in other.own_fields if getattr(config, field)}
    if config.windows:
      given.discard('stride')
    if other is not kind and given:
      yield f': a {kind} task has no {" or ".join(sorted(given))}; leave it out'
  if config.separator != ',' and not kind.takes_list:
    joined = ', '.join(k.name for k in kinds.KINDS.values() if k.takes_list)
    yield f'.separator: is only for {joined}, not for {kind}; leave it out'
  if not 1 <= len(config.separator) <= _LONGEST_SEPARATOR:
    yield (
      f'.separator: {config.separator!r}; give one to {_LONGEST_SEPARATOR}'
      " characters, such as ';'"
    )
  if config.class_weights and not kind.has_class_weights:
    weighted = [k.name for k in kinds.KINDS.values() if k.has_class_weights]
    yield (
      f'.class_weights: a {kind} task has none, only {", ".join(weighted)} have'
      ' them; leave it out'
    )
  else:
    try:
      class_weights.parse(config.class_weights, config.labels)
    except ValueError as e:
      yield f'.class_weights: {e}'
  for mistake in errors.find_unknown('.metrics', config.metrics, kind.metrics):
    yield f'{mistake}; these are the metrics of a {kind} task'
  if config.labels or not kind.infers_labels:
    yield from label_mistakes(kind, config.labels, config.scale, config.metrics)


def label_mistakes(
  kind: kind_lib.Kind,
  labels: Sequence[str],
  scale: tuple[float, float],
  metrics: Sequence[str],
) -> Iterator[str]:
  """Yields the mistakes in a task's labels, as `.FIELD: reason`."""
  if fault := kind.fault(labels, scale):
    yield f'.{fault}'
  if 'f1' in metrics and len(labels) != 2:
    needs = f"'f1' needs two labels, not {len(labels)}"
    yield f'.metrics: {needs}; give macro_f1, accuracy or matthews'


def _with_unlabelled(
  task: task_lib.Task, file: str, is_own: bool
) -> task_lib.Task:
  """Returns a copy of a task that also reads a file of unlabelled rows."""
  if task.kind.per_token:
    raise errors.UserError(
      f'config.data.unlabelled: {task.name!r} is {task.kind}, which has'
      ' outputs per word, but teachers can label only whole rows; remove it'
    )
  train = task.tables[task.train_split]
  format = plain_text.format_of(file)
  has_header = formats.FORMATS[format].columns == 'header'
  names = task.kind.input_names(task)
  # All files of a custom task have the same layout; official files may differ
  # by split.
  if is_own and has_header and not train.header:
    names = [train.text]
  table = task_lib.Table(
    file=file,
    text=names[0],
    other_texts=tuple(names[1:]),
    header=isinstance(names[0][0], str),
    format=format,
  )
  return dataclasses.replace(
    task, tables={**task.tables, task_lib.UNLABELLED: table}
  )


def _column(config: config_lib.TaskConfig, where: str, value: str) -> int | str:
  """Returns a column's name, or its number if the files have no header."""
  columns = formats.FORMATS[config.format].columns
  if columns == 'named' or (columns == 'header' and config.header):
    return value
  try:
    return plain_text.parse_integer(value)
  except ValueError:
    by_header = 'header=False says that ' if columns == 'header' else ''
    raise errors.UserError(
      f'{where}: {value!r} is not a column number, and {by_header}the files'
      ' name no columns; count from 0'
    ) from None
