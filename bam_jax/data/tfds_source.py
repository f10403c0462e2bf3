"""Reads datasets prepared by TensorFlow Datasets, without TensorFlow.

TensorFlow is needed only once, to download and prepare the data. `download`
does that in another process, so that TensorFlow takes no device and no memory
of this process.

TFDS 4.9 (tensorflow_datasets/text/glue.py) leaves out rows that lack a text or
a label. Its feature `idx` counts the data lines of the official file, including
the rows left out. Uids count in the same way. The only exception is MRPC, which
TFDS reads from another file. GLUE's download script splits the rows of that
file into train.tsv and dev.tsv and keeps their order, so the index of an MRPC
row is its position within the split. Prepared files hold shuffled rows, so
`read` sorts them by `idx`.
"""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import fcntl
import functools
import importlib.util
import json
import logging
import multiprocessing
from multiprocessing import connection
import operator
import os
from pathlib import Path
import platform
import sys
from typing import Any

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import lines
from bam_jax.data import tfrecord
from bam_jax.runtime import preemption
from bam_jax.tasks import task as task_lib

# Builders whose `idx` counts the lines of a file other than the official one.
_NUMBERED_OTHERWISE = frozenset({'glue/mrpc'})
# Module -> package, needed to download and prepare data; the same packages as
# in the extra `tfds` in setup.cfg.
_PACKAGES = {
  'tensorflow': 'tensorflow-cpu'
  if platform.machine() in ('x86_64', 'AMD64') and sys.platform != 'darwin'
  else 'tensorflow',
  'tensorflow_datasets': 'tensorflow-datasets',
  'importlib_resources': 'importlib_resources',
}
# Lock file in TFDS's folder, so that one process at a time prepares datasets.
_LOCK = 'bam_jax.lock'


def read(
  task: task_lib.Task, split: str, tfds_dir: str
) -> tuple[str, list[lines.Row]]:
  """Reads a TFDS split; returns its location, for errors, and its raw rows.

  The rows have the order and the indices of the official file; `Row.line` is 0.

  Raises:
    errors.UserError: TFDS is not installed, or the dataset is not prepared, is
      incomplete or cannot be read.
  """
  name, tfds_split = task.tables[split].tfds.split(':')
  builder = _find(name, tfds_dir)
  if builder is None:
    raise _not_prepared([name], tfds_dir)

  def fail(what: str) -> errors.UserError:
    command = _command([name], tfds_dir)
    return errors.UserError(
      f'{what}; remove the folder and prepare it again: {command}'
    )

  where = f'{builder.data_path}: split {tfds_split!r}'
  format = builder.info.file_format.value
  if format != 'tfrecord':
    raise fail(f'{builder.data_path}: files of format {format!r}, not tfrecord')
  if tfds_split not in builder.info.splits:
    raise fail(f'{where} is not there')
  info = builder.info.splits[tfds_split]
  rows: list[lines.Row] = []
  for path in info.filepaths:
    try:
      rows.extend(_rows(task, split, builder, Path(path)))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
      what = f'{path}: a record does not hold what TFDS writes ({error})'
      raise fail(what) from error
  if not len(rows) == len({row.index for row in rows}) == info.num_examples > 0:
    raise fail(
      f'{where} has {len(rows)} rows where dataset_info.json names'
      f' {info.num_examples} different ones'
    )
  rows.sort(key=operator.attrgetter('index'))
  if name in _NUMBERED_OTHERWISE:
    rows = [row._replace(index=place) for place, row in enumerate(rows)]
  return where, rows


def is_present(split: str, tfds_dir: str) -> bool:
  """Returns whether the TFDS split `BUILDER:SPLIT` is already prepared.

  Raises:
    errors.UserError: TFDS is not installed.
  """
  name, tfds_split = split.split(':')
  builder = _find(name, tfds_dir)
  return builder is not None and tfds_split in builder.info.splits


def _rows(
  task: task_lib.Task, split: str, builder: Any, path: Path
) -> Iterator[lines.Row]:
  """Yields the rows of one TFRecord file, in the order of the file."""
  names = None
  if not task.kind.has_scale:
    raw = dict(zip(task.tfds_labels, task.labels, strict=True))
    names = [raw.get(n, n) for n in builder.info.features['label'].names]
  for record in tfrecord.read(path):
    row = tfrecord.decode(record)
    label = None
    if task.tables[split].label is not None:
      value = row['label'][0]
      # `value` is a score or the number of a label; -1 in an unlabelled row.
      label = str(value) if names is None or value < 0 else names[value]
    texts = tuple(row[feature][0].decode() for feature in task.tfds_text)
    yield lines.Row(int(row['idx'][0]), 0, texts, label)


def _find(name: str, tfds_dir: str) -> Any:
  """Returns a read-only TFDS builder; None if no files are prepared."""
  tfds = _import()
  try:
    return tfds.core.read_only_builder.builder_from_files(
      name, data_dir=tfds_dir or None
    )
  except tfds.core.DatasetNotFoundError:
    return None


def _import() -> Any:
  """Imports TensorFlow Datasets; raises a `UserError` if it is missing."""
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise errors.UserError(
      f'config.data.source=tfds needs TensorFlow Datasets ({error}); run pip'
      ' install tensorflow-datasets importlib_resources'
    ) from None
  return tfds


def missing(
  tasks: Iterable[task_lib.Task], data: config_lib.DataConfig
) -> list[str]:
  """Returns the names of the TFDS builders that still have to be prepared.

  Raises:
    errors.UserError: TFDS is not installed.
  """
  return [n for n in _builders(tasks, data) if _find(n, data.tfds_dir) is None]


def check(tasks: Iterable[task_lib.Task], data: config_lib.DataConfig) -> None:
  """Raises if datasets are missing and `download` cannot prepare them.

  Raises:
    errors.UserError: TFDS is not installed; or a dataset is missing, and so is
      another package that `download` needs. The message names the datasets, and
      one command that prepares all of them.
  """
  names = _builders(tasks, data)
  if importlib.util.find_spec('tensorflow_datasets') is not None:
    names = missing(tasks, data)
  if names and errors.absent(_PACKAGES):
    raise _not_prepared(names, data.tfds_dir)


def how_to_get(split: str, tfds_dir: str) -> str:
  """Returns the command that prepares the missing split `BUILDER:SPLIT`."""
  return f'run: {_command([split.partition(":")[0]], tfds_dir)}'


def download(names: Sequence[str], tfds_dir: str) -> Iterator[None]:
  """Downloads and prepares TFDS datasets in another process.

  Waits while another command prepares datasets in the same folder.

  Yields:
    None, twice a second, so that the caller can stop: closing the iterator ends
    the process. Finished datasets are kept.

  Raises:
    errors.UserError: TensorFlow is not installed, or a download fails.
  """
  if errors.absent(_PACKAGES):
    raise _not_prepared(names, tfds_dir)
  context = multiprocessing.get_context('spawn')
  receiver, sender = context.Pipe(duplex=False)
  process = context.Process(
    target=_download, args=(names, tfds_dir, sender), daemon=True
  )
  process.start()
  sender.close()
  try:
    for number, name in enumerate(names, 1):
      logging.info(
        'downloading and preparing %s in %s (%d of %d)',
        name,
        _folder(tfds_dir),
        number,
        len(names),
      )
      while not receiver.poll(0.5):
        yield
      try:
        error = receiver.recv()
      except EOFError:
        process.join()
        error = f'the process ended with {process.exitcode}'
      if error:
        raise errors.UserError(
          f'config.data.source=tfds: {name} cannot be downloaded and prepared'
          f' in {_folder(tfds_dir)}: {error}; fix that and run the same'
          ' command again; finished data sets are kept'
        )
  finally:
    process.kill()
    process.join()
    receiver.close()


def _download(
  names: Sequence[str], tfds_dir: str, sender: connection.Connection
) -> None:
  """Prepares datasets; sends '' or an error text after each dataset."""
  preemption.follow_parent()
  # TensorFlow would log a lot to standard error, and would take GPUs.
  os.environ |= {
    'TF_CPP_MIN_LOG_LEVEL': '3',
    'TF_ENABLE_ONEDNN_OPTS': '0',
    'CUDA_VISIBLE_DEVICES': '',
  }
  # TFDS prints its progress to standard output, which is only for results.
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  for name in names:
    error = ''
    try:
      import tensorflow_datasets as tfds

      if not sys.stderr.isatty():
        tfds.disable_progress_bar()
      with _alone(_folder(tfds_dir)):
        builder = tfds.builder(name, data_dir=tfds_dir or None)
        builder.download_and_prepare()
    except Exception as e:  # From TFDS, the HTTP client or the system.
      text = str(e).strip().partition('\n')[0]
      error = f'{type(e).__name__}: {text}'
    sender.send(error)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
  """Context manager that locks the TFDS folder against other processes."""
  folder.mkdir(parents=True, exist_ok=True)
  flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
  descriptor = os.open(folder / _LOCK, flags, 0o666)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print(f'{folder}: waiting for another command', file=sys.stderr)
      fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
  finally:
    os.close(descriptor)


def _builders(
  tasks: Iterable[task_lib.Task], data: config_lib.DataConfig
) -> list[str]:
  """Returns the names of the TFDS builders of training and development rows."""
  if data.source != 'tfds':
    return []
  names = [
    task.tables[split].tfds.partition(':')[0]
    for task in tasks
    for split in (task.train_split, *task.dev_splits)
  ]
  return list(dict.fromkeys(filter(None, names)))


def _folder(tfds_dir: str) -> Path:
  """Returns the folder in which TFDS stores prepared datasets."""
  return Path(tfds_dir or _import().core.constants.DATA_DIR)


def _not_prepared(names: Sequence[str], tfds_dir: str) -> errors.UserError:
  """Returns the error for datasets that are not prepared."""
  absent = errors.absent(_PACKAGES)
  where = tfds_dir or 'the folder of TFDS'
  if 'tensorflow_datasets' not in absent:
    where = str(_folder(tfds_dir))
  lacks = f', and {" and ".join(absent)} not installed' if absent else ''
  return errors.UserError(
    f'config.data.tfds_dir: {", ".join(names)} not prepared in {where}{lacks};'
    f' run: {_command(names, tfds_dir)}'
  )


def _command(names: Sequence[str], tfds_dir: str) -> str:
  """Returns a shell command that prepares datasets (and installs TFDS)."""
  quote = functools.partial(json.dumps, ensure_ascii=False)
  where = f', data_dir={quote(tfds_dir)}' if tfds_dir else ''
  return errors.python_command(
    'import tensorflow_datasets as t; [t.builder(name'
    f'{where}).download_and_prepare() for name in {quote(names)}]',
    _PACKAGES,
  )
