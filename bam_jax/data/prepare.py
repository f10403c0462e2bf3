"""Turns the raw rows of a split into a verified shard set of features."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import itertools
import logging
from pathlib import Path

import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import features
from bam_jax.data import shards
from bam_jax.data import sources
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib

# Examples that are cut into windows at once.
_BATCH = 1024


def feature_fingerprint(
  task: task_lib.Task,
  split: str,
  data: config_lib.DataConfig,
  tokenizer: features.Tokenizer,
) -> dict[str, object]:
  """Returns everything that decides the features of a split; reads all rows."""
  return {
    'rows': sources.rows_digest(sources.read(task, split, data)),
    'task': task.definition(),
    'tokenizer': tokenizer.fingerprint,
    'max_length': data.max_length,
    'swap': _is_swapped(task, split, data),
  }


def feature_fields(task: task_lib.Task) -> tuple[shards.Field, ...]:
  """Returns the fields of a task's features, which depend on its kind."""
  kind = task.kind
  return shards.feature_fields(kind.label_width(task), kind.more_fields)


def featurize(
  examples: Iterable[task_lib.Example],
  task: task_lib.Task,
  tokenizer: features.Tokenizer,
  max_length: int,
  swap: bool = False,
  on_cut: features.OnCut = lambda uid: None,
) -> Iterator[kind_lib.Features]:
  """Yields the features of examples, in their order.

  Args:
    examples: read once, as a stream.
    task: of all the examples.
    tokenizer: makes the ids.
    max_length: tokens a row has at most, specials included.
    swap: as `features.featurize` has it.
    on_cut: called with the uid of each example that is not read to its end,
      before its first row is returned.

  Raises:
    errors.UserError: the kind's windows would leave tokens out.
  """
  if not task.kind.in_windows:
    yield from features.featurize(
      examples, task, tokenizer, max_length, swap, on_cut
    )
    return
  stream = iter(examples)
  while batch := list(itertools.islice(stream, _BATCH)):
    yield from task.kind.windows(task, batch, tokenizer, max_length, on_cut)


def prepare(
  task: task_lib.Task,
  split: str,
  data: config_lib.DataConfig,
  tokenizer: features.Tokenizer,
  directory: Path,
) -> shards.Columns:
  """Returns the features of a split; writes them if there are none.

  Args:
    task: the task.
    split: one of its tables.
    data: where the rows are, and their longest length.
    tokenizer: turns texts into ids.
    directory: of the shard set.

  Returns:
    One row an example, or a window of it, in the order of the raw file;
    swapped copies after.

  Raises:
    errors.UserError: the raw rows are unusable, or the shard set that is there
      is damaged or was made from something else.
  """
  fingerprint = feature_fingerprint(task, split, data, tokenizer)
  fields = feature_fields(task)
  if not shards.exists(directory):
    if split == task_lib.UNLABELLED:
      _note_labels(task, split, data)
    rows = featurize(
      sources.read(task, split, data),
      task,
      tokenizer,
      data.max_length,
      _is_swapped(task, split, data),
    )
    shards.write(
      directory,
      fields,
      (row._asdict() for row in rows),
      fingerprint,
      metadata=label_metadata(task),
      shard_rows=data.shard_rows,
    )
  columns = shards.open(directory, fields, fingerprint)
  _check_tokens(columns, tokenizer.vocab_size, data.max_length, directory)
  return columns


def _note_labels(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> None:
  name = sources.ignored_label(task, split, data)
  if name is not None:
    logging.info(
      '%s: %s is not read: rows of config.data.unlabelled have no labels',
      sources.path_of(task, split, data),
      name,
    )


def _check_tokens(
  columns: shards.Columns, vocab_size: int, max_length: int, directory: Path
) -> None:
  """Raises if ids are outside the vocabulary or rows longer than `max_length`.

  A damaged set may have a right fingerprint, and an id outside the vocabulary
  would silently read another word's embedding.
  """
  ids, offsets = columns.ragged('input_ids')
  lengths, first = np.diff(offsets), columns.fixed('length_a')
  good = (lengths <= max_length) & (first >= 1) & (first <= lengths)
  if good.all() and ids.min() >= 0 and ids.max() < vocab_size:
    return
  raise errors.UserError(
    f'{directory}: holds rows that are not from 1 to {max_length} tokens of'
    f' the {vocab_size} of the vocabulary; remove the folder and run the same'
    ' command again'
  )


def prepare_if_present(
  task: task_lib.Task,
  split: str,
  data: config_lib.DataConfig,
  tokenizer: features.Tokenizer,
  directory: Path,
) -> shards.Columns | None:
  """Calls `prepare`; returns None and logs a warning if there is no file."""
  if not sources.is_present(task, split, data):
    is_tfds = sources.source_of(task, split, data) == 'tfds'
    logging.warning(
      '%s/%s: no %s; it is left out (to have it: %s)',
      task.name,
      split,
      task.tables[split].tfds if is_tfds else sources.missing(task, split),
      sources.how_to_get(task, split, data),
    )
    return None
  return prepare(task, split, data, tokenizer, directory)


def label_metadata(task: task_lib.Task) -> Mapping[str, object]:
  """Returns the metadata of features and logits: task and label names."""
  return {'task': task.name, 'labels': list(task.labels)}


def _is_swapped(
  task: task_lib.Task, split: str, data: config_lib.DataConfig
) -> bool:
  is_taught = split in (task.train_split, task_lib.UNLABELLED)
  return is_taught and task.name in data.swap
