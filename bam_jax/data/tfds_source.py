"""Examples from a folder that TensorFlow Datasets prepared, without TensorFlow.

TFDS 4.9 (tensorflow_datasets/text/glue.py) reads the official files with
Python's `csv`, unquoted, and leaves out rows that lack a text or a label. Its
feature `idx` counts the file's data lines, those left out included, which is
how uids count. MRPC alone is read from msr_paraphrase_train.txt, whose rows
GLUE's download script splits in their order into train.tsv and dev.tsv: there
the place within the split is the uid's index. Prepared files hold the rows
shuffled by a hash, so they are sorted by `idx` first.
"""

from collections.abc import Iterator
import operator
from pathlib import Path
from typing import Any
from typing import NamedTuple

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import tfrecord
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

# Builders whose `idx` numbers another file than the official one.
_NUMBERED_OTHERWISE = frozenset({'glue/mrpc'})


class _Row(NamedTuple):
  idx: int
  text: tuple[str, ...]
  label: str | None


def read(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> Iterator[task_lib.Example]:
  """The examples of a split as `sources.read` gives them for its TSV file.

  Holds the rows of the split in memory, to restore their order.

  Args:
    task: a task whose table names a TFDS builder and split.
    split: one of `task.tables`.
    data: `tfds_dir` is the folder that holds the prepared data, TFDS's default
      if empty.

  Raises:
    errors.UserError: TFDS is not installed, the data set is not prepared or is
      incomplete, or a label is unknown.
  """
  name, _, tfds_split = task.tables[split].tfds.partition(':')
  builder = _find(name, data.tfds_dir)
  if builder is None:
    raise errors.UserError(
      f'config.data.tfds_dir: {name} is not prepared in'
      f' {data.tfds_dir or _import().core.constants.DATA_DIR}; where TensorFlow'
      f' is installed, run: {_command(name, data.tfds_dir)}'
    )
  where = f'{builder.data_path}: split {tfds_split!r}'
  remedy = (
    f'remove the folder and prepare it again: {_command(name, data.tfds_dir)}'
  )
  if builder.info.file_format.value != 'tfrecord':
    raise errors.UserError(
      f'{builder.data_path}: files of format'
      f' {builder.info.file_format.value!r}, not tfrecord; {remedy}'
    )
  if tfds_split not in builder.info.splits:
    raise errors.UserError(f'{where} is not there; {remedy}')
  info = builder.info.splits[tfds_split]
  rows = []
  for path in info.filepaths:
    try:
      rows.extend(_rows(task, split, builder, Path(path)))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
      raise errors.UserError(
        f'{path}: a record does not hold what TFDS writes ({error}); {remedy}'
      ) from error
  if not len(rows) == len({row.idx for row in rows}) == info.num_examples > 0:
    raise errors.UserError(
      f'{where} has {len(rows)} rows where dataset_info.json tells of'
      f' {info.num_examples} different ones; {remedy}'
    )
  rows.sort(key=operator.attrgetter('idx'))
  by_place = name in _NUMBERED_OTHERWISE
  for place, row in enumerate(rows):
    yield task_lib.Example(
      f'{task.name}/{split}/{place if by_place else row.idx}',
      row.text[0],
      row.text[1] if len(row.text) == 2 else None,
      None
      if row.label is None
      else kinds.of(task).parse(task, row.label, f'{where}, idx {row.idx}'),
    )


def is_present(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> bool:
  """Whether a split of a task is prepared.

  Raises:
    errors.UserError: TFDS is not installed.
  """
  name, _, tfds_split = task.tables[split].tfds.partition(':')
  builder = _find(name, data.tfds_dir)
  return builder is not None and tfds_split in builder.info.splits


def _rows(
  task: task_lib.Task, split: str, builder: Any, path: Path
) -> Iterator[_Row]:
  """The rows of one TFRecord file, in the order of the file."""
  names = None
  if not task.is_regression:
    raw = dict(zip(task.tfds_labels, task.labels, strict=True))
    names = [raw.get(n, n) for n in builder.info.features['label'].names]
  for record in tfrecord.read(path):
    row = tfrecord.decode(record)
    label = None
    if task.tables[split].label is not None:
      value = row['label'][0]
      # A score, or the number of a label; an unlabelled row has -1.
      label = str(value) if names is None or value < 0 else names[value]
    yield _Row(
      int(row['idx'][0]),
      tuple(row[feature][0].decode() for feature in task.tfds_text),
      label,
    )


def _find(name: str, tfds_dir: str) -> Any:
  """A read-only TFDS builder over prepared files; None if there are none."""
  tfds = _import()
  try:
    return tfds.core.read_only_builder.builder_from_files(
      name, data_dir=tfds_dir or None
    )
  except tfds.core.DatasetNotFoundError:
    return None


def _import() -> Any:
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise errors.UserError(
      f'config.data.source=tfds needs TensorFlow Datasets ({error}); run pip'
      ' install tensorflow-datasets importlib_resources'
    ) from None
  return tfds


def _command(name: str, tfds_dir: str) -> str:
  """The command that downloads and prepares a data set."""
  where = f", data_dir='{tfds_dir}'" if tfds_dir else ''
  return (
    'python -c "import tensorflow_datasets as t;'
    f" t.builder('{name}'{where}).download_and_prepare()\""
  )
