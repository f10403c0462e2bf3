"""Builds packed NumPy batches for training and for evaluation.

Sizes: B rows, L tokens per row, S slots for examples per row, C outputs of the
widest head, N examples, T tasks.

A batch maps `input_ids, token_type_ids, positions, segment_ids` to
[B, L] int32, `cls_index, task_id` to [B, S] int32, `gold, teacher` to
[B, S, C] float32 and `weight` to [B, S] float32. Segments are numbered from 1;
segment 0 is padding. Positions restart in each segment. An empty slot has
weight 0.

Training batches have more arrays if some tasks need them. Tasks with outputs
per token add `token_gold, token_teacher` [B, L, K] and `token_share` [B, L],
all float32; K is the number of outputs of the widest such head. Tasks with
class weights, if each of their labels is a separate yes/no decision, add
`gold_total` [B, S, C] float32.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
import itertools
from typing import TypeVar

import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import packing as packing_lib
from bam_jax.core import sampling
from bam_jax.data import columns as columns_lib
from bam_jax.data import shards
from bam_jax.data import targets
from bam_jax.tasks import task as task_lib
from bam_jax.tasks import windows

Item = TypeVar('Item')


class TrainBatches:
  """Makes the training batch of any step: `batches(step)`.

  The batch depends only on the step: the sampler chooses the examples, and
  their lengths decide the row and slot of each. The row and slot depend neither
  on the bucket size nor on the number of processes.

  Attributes:
    shares: task name -> the task's intended share of the examples.
    loss_weights: task name -> factor of the loss of the task's examples.
    class_weights: task name -> `Task.target_weights`; tasks without class
      weights are left out.
  """

  def __init__(
    self,
    tasks: task_lib.TaskTable,
    task_ids: Sequence[int],
    features: Sequence[shards.Columns],
    teachers: Sequence[np.ndarray | None],
    sampler: sampling.Sampler,
    packing: config_lib.PackingConfig,
    rows_multiple: int = 1,
    own_rows: Callable[[int], np.ndarray] | None = None,
    without_labels: Sequence[shards.Columns | None] = (),
  ):
    """Loads lengths and labels into memory; token ids stay memory-mapped.

    Args:
      tasks: all tasks of the model, in the order of the heads.
      task_ids: for each task of the sampler, the index of its head.
      features: for each task of the sampler, the training rows with labels.
      teachers: for each task of the sampler, the teacher's probabilities or
        scores on 0-1, float32. The shape is [rows, outputs], where the rows
        with labels come before the rows without; or [tokens, outputs] for a
        task with outputs per token. None: the gold target is used instead.
      sampler: chooses the examples of a step.
      packing: how examples are put into rows; without `row_buckets`, B is the
        number of rows that the examples fill.
      rows_multiple: B is rounded up to a multiple of this, for the mesh.
      own_rows: function from B to the indices of the rows that this process
        makes, ascending; None: this process makes all rows.
      without_labels: for each task of the sampler, the rows that have only a
        teacher's label; the sampler numbers them after the rows with labels.
        Empty: no task has such rows.

    Raises:
      errors.UserError: an example's label is missing or unknown to its head.
      ValueError: a teacher array has a wrong shape, or is missing for rows
        without labels.
    """
    self._sampler = sampler
    self._packing = packing
    self._multiple = rows_multiple
    self._own_rows = own_rows
    self._heads = np.asarray(task_ids, np.int32)
    self._slots = packing.used_slots
    self._buckets = (packing.enabled and packing.row_buckets) or (1,)
    without_labels = without_labels or [None] * len(features)
    # For each task, the rows with labels come before the rows without.
    pairs = list(zip(features, without_labels, strict=True))
    parts = [part for pair in pairs for part in pair if part is not None]
    tokens = [part.ragged('input_ids') for part in parts]
    # A plain view of the same memory: slicing a memmap is ten times slower.
    self._tokens = [np.asarray(values) for values, _ in tokens]
    self._starts = np.concatenate([offsets[:-1] for _, offsets in tokens])
    self._lengths = np.concatenate([np.diff(offsets) for _, offsets in tokens])
    self._lengths_a = np.concatenate([p.fixed('length_a') for p in parts])
    self._part_ends = np.cumsum([len(part) for part in parts])
    counts = [sum(len(part or ()) for part in pair) for pair in pairs]
    self._bases = np.cumsum([0, *counts[:-1]])
    heads = [tasks.tasks[head] for head in task_ids]
    names = [head.name for head in heads]
    self.shares = dict(zip(names, map(float, sampler.shares)))
    self.loss_weights = dict(zip(names, map(float, sampler.weights)))
    self.class_weights = {
      head.name: head.target_weights for head in heads if head.target_weights
    }
    # Loss factor of each row, multiplied by the factor of the row's task.
    self._row_weights = np.concatenate(
      [
        windows.weights(part.uids)
        if head.windows
        else np.ones(len(part), np.float32)
        for head, pair in zip(heads, pairs)
        for part in pair
        if part is not None
      ]
    )
    for head, columns in zip(heads, features):
      _check_labels(head, columns)
    self._targets = targets.Targets(
      heads,
      features,
      without_labels,
      teachers,
      tasks.num_outputs,
      tasks.token_outputs,
      tasks.has_totals,
    )

  def __call__(self, step: int) -> dict[str, np.ndarray]:
    """Returns the batch of a step, or only the rows of this process.

    `own_rows` decides which rows belong to this process.
    """
    task, row = self._sampler(step)
    example = self._bases[task] + row
    lengths = self._lengths[example]
    packed = self._pack(lengths)
    num_rows = packing_lib.bucket(
      packed.num_rows, self._buckets, self._multiple
    )
    if self._own_rows:
      own = self._own_rows(num_rows)
      kept = np.isin(packed.row, own)
      packed = packing_lib.Packing(
        np.searchsorted(own, packed.row[kept]),
        packed.slot[kept],
        packed.start[kept],
        len(own),
      )
      task, row = task[kept], row[kept]
      example, lengths = example[kept], lengths[kept]
      num_rows = len(own)
    begins = self._starts[example]
    part = np.searchsorted(self._part_ends, example, 'right')
    of_example, of_token = self._targets(task, row, lengths)
    return packing_lib.assemble(
      packed,
      (num_rows, self._packing.row_length, self._slots),
      _gather([self._tokens[k] for k in part.tolist()], begins, lengths),
      lengths,
      self._lengths_a[example],
      of_token,
      task_id=self._heads[task],
      weight=self._sampler.weights[task] * self._row_weights[example],
      **of_example,
    )

  def rows_filled(self, step: int) -> int:
    """Returns how many rows the examples of a step fill, before rounding up."""
    task, row = self._sampler(step)
    return self._pack(self._lengths[self._bases[task] + row]).num_rows

  def _pack(self, lengths: np.ndarray) -> packing_lib.Packing:
    """Assigns a row and a slot to each example."""
    if not self._packing.enabled:
      return packing_lib.one_per_row(len(lengths))
    return packing_lib.pack(lengths, self._packing.row_length, self._slots)


def evaluation_batches(
  features: shards.Columns | columns_lib.InMemory,
  task_id: int | np.ndarray,
  packing: config_lib.PackingConfig,
  sizes: Sequence[int],
  only: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
  """Packs each example once, longest first, and yields batches.

  Args:
    features: the features of a split, or of texts.
    task_id: index of the head for all rows, or an array [N] with one per row.
    packing: how examples are put into rows.
    sizes: possible values of B, ascending. All batches have the largest, except
      the last, which has the smallest that is large enough.
    only: [n] int64, indices of the examples to read; None: all examples.

  Yields:
    Pairs of an array and a batch. The array, [B, S] int64, holds the index of
    the example in each slot (with `only`, the position in `only`), or -1 for an
    empty slot. The batch has the arrays that the model reads: those of a
    training batch, without targets and weights.
  """
  values, offsets = features.ragged('input_ids')
  values, begins, lengths = np.asarray(values), offsets[:-1], np.diff(offsets)
  lengths_a = features.fixed('length_a')
  task_ids = np.broadcast_to(np.asarray(task_id, np.int32), len(features))
  if only is not None:
    begins, lengths, lengths_a = begins[only], lengths[only], lengths_a[only]
    task_ids = task_ids[only]
  slots = packing.used_slots
  packed = packing_lib.pack(lengths, packing.row_length, slots)
  order = np.argsort(packed.row, kind='stable')
  rows = sizes[-1]
  num_batches = -(-packed.num_rows // rows)
  bounds = np.searchsorted(packed.row[order], rows * np.arange(num_batches + 1))
  for number in range(num_batches):
    left = packed.num_rows - number * rows
    size = packing_lib.bucket(min(left, rows), sizes, 1)
    example = order[bounds[number] : bounds[number + 1]]
    places = packing_lib.Packing(
      packed.row[example] - number * rows,
      packed.slot[example],
      packed.start[example],
      size,
    )
    batch = packing_lib.assemble(
      places,
      (size, packing.row_length, slots),
      _gather([values] * len(example), begins[example], lengths[example]),
      lengths[example],
      lengths_a[example],
      task_id=task_ids[example],
    )
    cell = places.row * slots + places.slot
    yield packing_lib.scatter(example + 1, cell, (size, slots)) - 1, batch


def _check_labels(task: task_lib.Task, columns: shards.Columns) -> None:
  """Raises a `UserError` if a training label is missing or unknown."""
  good = task.kind.is_trainable(task, columns)
  if not good.all():
    row = int(np.argmin(good))
    what = 'it has no labels'
    if not task.kind.per_token:
      what = f'{columns.fixed("label")[row]} is not a valid label'
    raise errors.UserError(
      f'{columns.uids[row]}: {what} for task {task.name}; correct the row'
      ' in the raw data'
    )


def _gather(
  values: Sequence[np.ndarray], begins: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
  """Concatenates the tokens of n examples.

  The tokens of example i start at `begins[i]` in the array `values[i]`.
  """
  if not len(begins):
    return np.empty(0, np.int32)
  spans = zip(values, begins.tolist(), (begins + lengths).tolist())
  return np.concatenate([array[begin:end] for array, begin, end in spans])


def prefetch(
  make: Callable[[int], Item], steps: Iterable[int], depth: int
) -> Iterator[Item]:
  """Yields `make(step)` for each step, computed ahead in a background thread.

  The thread ends when the steps are done, when `make` raises, or when the
  iterator is closed or deleted.

  Args:
    make: called only in the background thread, one call at a time.
    steps: the arguments of `make`.
    depth: maximum number of items computed ahead, at least 1.

  Yields:
    The results in the order of the steps.

  Raises:
    Any error that `make` raises, when the iterator reaches that step.
  """
  steps = iter(steps)
  thread = futures.ThreadPoolExecutor(1, 'prefetch')
  try:
    waiting = collections.deque(
      thread.submit(make, step) for step in itertools.islice(steps, depth)
    )
    while waiting:
      item = waiting.popleft().result()
      for step in itertools.islice(steps, 1):
        waiting.append(thread.submit(make, step))
      yield item
  finally:
    thread.shutdown(cancel_futures=True)
