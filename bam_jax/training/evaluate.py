"""Predicts the logits of splits, scores them and writes them to files."""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
import io
import math
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from bam_jax import config as config_lib
from bam_jax import files
from bam_jax.core import packing as packing_lib
from bam_jax.data import batches
from bam_jax.data import shards
from bam_jax.tasks import metrics
from bam_jax.tasks import ragged
from bam_jax.tasks import task as task_lib
from bam_jax.training import programs as programs_lib

Item = TypeVar('Item')

# Number of batches that may be in flight: dispatched, with logits that are not
# fetched yet.
_IN_FLIGHT = 4
# Tokens per batch on a CPU. The arrays of a larger batch are so large that the
# operating system allocates and clears their memory anew for each batch.
_CPU_TOKENS = 1024

# task -> split -> rows
Splits = Mapping[str, Mapping[str, shards.Columns]]
# task -> split -> logits, as `predict` returns them
Outputs = dict[str, dict[str, np.ndarray]]
# task -> split -> metric -> score times 100; nan if the metric is undefined
Scores = dict[str, dict[str, dict[str, float]]]
# task -> split -> undefined metric -> why the metric is undefined
Reasons = dict[str, dict[str, dict[str, str]]]


def predict(
  programs: programs_lib.Programs,
  params: Mapping[str, object],
  features: shards.Columns,
  task_id: int,
  packing: config_lib.PackingConfig,
  advance: Callable[[int], None] = lambda n: None,
  only: np.ndarray | None = None,
  is_frozen: bool = False,
) -> np.ndarray:
  """Predicts the logits of N rows of one task.

  Args:
    programs: the compiled programs.
    params: the model's parameters on the devices.
    features: features of a split.
    task_id: index of the task's head.
    packing: how rows are packed into batches.
    advance: function that is called after each batch with the number of
      examples in the batch.
    only: int64 indices of the rows to predict; None: all rows.
    is_frozen: whether to return the encoder's vectors instead of logits.

  Returns:
    Logits [N, c] float32 for the task's c outputs, or [tokens, c] for a task
    with outputs per token. With `is_frozen`, the encoder's vectors are
    returned instead, and c is their length.
  """
  task = programs.tasks.tasks[task_id]
  forward, width = programs.predict, task.num_outputs
  if is_frozen:
    forward, width = programs.encode, programs.hidden_size
  params = programs.split_layers(params)
  only = np.arange(len(features)) if only is None else only
  lengths = np.diff(features.ragged('input_ids')[1])[only]
  begins = np.cumsum(lengths) - lengths
  count = lengths.sum() if task.kind.per_token else len(only)
  result = np.full((count, width), np.nan, np.float32)
  dispatched = (
    (rows, batch['cls_index'], forward(params, batch))
    for rows, batch in batches.evaluation_batches(
      features, task_id, packing, (batch_rows(programs, packing),), only
    )
  )
  for rows, starts, logits in keep_in_flight(dispatched):
    real = rows >= 0
    row = rows[real]
    if task.kind.per_token:
      tokens = jax.device_get(logits.tokens)  # [B, L, K]
      first = np.nonzero(real)[0] * tokens.shape[1] + starts[real]
      tokens = tokens.reshape(-1, tokens.shape[-1])
      found = tokens[ragged.indices(first, lengths[row])]
      row = ragged.indices(begins[row], lengths[row])
    else:
      found = jax.device_get(logits.slots)[real]
    result[row] = found[:, :width]
    advance(int(real.sum()))
  return result


def keep_in_flight(dispatched: Iterable[Item]) -> Iterator[Item]:
  """Yields dispatched batches in order while a few later ones are in flight."""
  pending = collections.deque()
  for item in dispatched:
    pending.append(item)
    if len(pending) > _IN_FLIGHT:
      yield pending.popleft()
  yield from pending


def batch_rows(
  programs: programs_lib.Programs, packing: config_lib.PackingConfig
) -> int:
  """Returns the number of rows per evaluation batch."""
  rows = packing.eval_rows
  if programs.mesh.devices.flat[0].platform == 'cpu':
    rows = min(rows, max(_CPU_TOKENS // packing.row_length, 1))
  return packing_lib.bucket(rows, (1,), programs.mesh.size)


def evaluate(
  programs: programs_lib.Programs,
  params: Mapping[str, object],
  splits: Splits,
  packing: config_lib.PackingConfig,
  advance: Callable[[int], None] = lambda n: None,
) -> tuple[Outputs, Scores]:
  """Predicts and scores labelled splits.

  `advance` is called after each batch with the number of examples in the batch.
  """
  params = programs.split_layers(params)
  outputs: Outputs = {}
  scores: Scores = {}
  for name, by_split in splits.items():
    task, head = programs.tasks[name], programs.tasks.index[name]
    outputs[name] = {
      split: predict(programs, params, features, head, packing, advance)
      for split, features in by_split.items()
    }
    scores[name] = {
      split: task.kind.score(task, logits, by_split[split])
      for split, logits in outputs[name].items()
    }
  return outputs, scores


def why_undefined(
  splits: Splits, outputs: Outputs, scores: Scores, tasks: task_lib.TaskTable
) -> Reasons:
  """Explains each undefined score that `evaluate` returned."""
  found: Reasons = {}
  for name, by_split in scores.items():
    task = tasks[name]
    for split, values in by_split.items():
      undefined = [metric for metric in values if math.isnan(values[metric])]
      if undefined:
        logits, rows = outputs[name][split], splits[name][split]
        measured = task.kind.measure(task, logits, rows)
        found.setdefault(name, {})[split] = {
          metric: metrics.why_undefined(metric, measured)
          for metric in undefined
        }
  return found


def save(
  path: Path, tasks: task_lib.TaskTable, splits: Splits, outputs: Outputs
) -> None:
  """Writes the outputs of all splits to an npz file.

  The arrays are named TASK/SPLIT/KEY; `Kind.outputs` chooses the keys.

  Raises:
    errors.UserError: the file can't be written.
  """
  arrays = {
    f'{name}/{split}/{key}': value
    for name, by_split in outputs.items()
    for split, logits in by_split.items()
    for key, value in tasks[name]
    .kind.outputs(tasks[name], logits, splits[name][split])
    .items()
  }
  data = io.BytesIO()
  np.savez(data, **arrays)
  files.write_bytes(path, data.getvalue())
