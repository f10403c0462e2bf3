"""Tokenises the raw rows of a split and stores them as a shard set."""

from collections.abc import Mapping, Sequence
import logging
from pathlib import Path

import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import features
from bam_jax.data import shards
from bam_jax.data import sources
from bam_jax.tasks import task as task_lib

# A warning is logged if more than this share of the training rows is cut.
MANY_CUT = 0.1


def feature_fields(task: task_lib.Task) -> tuple[shards.Field, ...]:
  """Returns the fields that are stored for each example of a task."""
  kind = task.kind
  return shards.feature_fields(kind.label_width(task), kind.more_fields)


def prepare(
  task: task_lib.Task,
  split: str,
  data: config_lib.DataConfig,
  tokenizer: features.Tokenizer,
  directory: Path,
  replaces: bool = False,
  examples: Sequence[task_lib.Example] | None = None,
) -> shards.Columns:
  """Opens the stored features of a split; tokenises the split if needed.

  Args:
    task, split, data: what to read, and how.
    tokenizer: makes the token ids.
    directory: folder of the shard set.
    replaces: whether to replace a shard set that was made from other rows or
      settings; if False, such a set raises an error.
    examples: the examples of the split, if they have already been read.

  Returns:
    One row per example, or per window of an example, in the order of the raw
    file; then the swapped copies.

  Raises:
    errors.UserError: the raw rows are unusable, or the existing shard set is
      damaged or was made from other data or settings.
  """
  is_taught = split in (task.train_split, task_lib.UNLABELLED)
  swap = is_taught and task.name in data.swap
  fingerprint = {
    'rows': sources.rows_digest(examples or sources.read(task, split, data)),
    'task': task.definition(),
    'tokenizer': tokenizer.fingerprint,
    'max_length': data.max_length,
    'swap': swap,
  }
  fields = feature_fields(task)
  cut: set[str] = set()
  is_there = shards.exists(directory)
  if replaces and is_there:
    is_there = shards.is_made_from(directory, fingerprint)
    if not is_there:
      logging.info(
        '%s: is made again, since its inputs have changed', directory
      )
  if not is_there:
    # Quiet, because the first reading has already logged the skipped rows.
    examples = examples or sources.read(task, split, data, quiet=True)
    rows = features.featurize(
      *(examples, task, tokenizer, data.max_length, swap),
      on_cut=lambda uid: cut.add(task_lib.example_uid(uid)),
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
  if cut and split == task.train_split:
    count = len(set(map(task_lib.example_uid, columns.uids)))
    if len(cut) > MANY_CUT * count:
      logging.warning(
        '%s: %.0f%% of %s training rows are cut at config.data.max_length=%d;'
        ' raise it if the encoder has more positions, or, for a custom task of'
        ' whole texts, set its windows',
        *(task.name, 100 * len(cut) / count, f'{count:,}', data.max_length),
      )
  return columns


def _check_tokens(
  columns: shards.Columns, vocab_size: int, max_length: int, directory: Path
) -> None:
  """Raises if a stored token id, or the length of a row, is out of range.

  A damaged set may still have the right fingerprint. A token id outside the
  vocabulary would silently look up the embedding of another token.
  """
  ids, offsets = columns.ragged('input_ids')
  lengths, first = np.diff(offsets), columns.fixed('length_a')
  good = (lengths <= max_length) & (first >= 1) & (first <= lengths)
  if good.all() and ids.min() >= 0 and ids.max() < vocab_size:
    return
  raise errors.UserError(
    f'{directory}: a row is not 1 to {max_length} tokens long, or a token id is'
    f' outside the vocabulary of {vocab_size} tokens; {shards.AGAIN}'
  )


def label_metadata(task: task_lib.Task) -> Mapping[str, object]:
  """Returns task and label names, which are stored with features and logits."""
  return {'task': task.name, 'labels': list(task.labels)}
