"""Builds packed NumPy batches for training and for evaluation.

B rows, L tokens a row, S segment slots a row, C the widest head, N examples,
T tasks. A batch maps `input_ids, token_type_ids, positions, segment_ids` to
[B, L] int32, `cls_index, task_id` to [B, S] int32, `gold, teacher` to
[B, S, C] float32 and `weight` to [B, S] float32. Segments are numbered from 1,
0 is padding; positions restart in each segment; an empty slot weighs 0. If a
task's outputs are of tokens, K at most, training batches also have
`token_gold, token_teacher` [B, L, K] and `token_share` [B, L] float32; if the
labels of a task are decisions with weights, `gold_total` [B, S, C] float32.
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
from bam_jax.data import shards
from bam_jax.data import targets
from bam_jax.data import unlabelled
from bam_jax.tasks import task as task_lib
from bam_jax.tasks import windows

Item = TypeVar('Item')


class TrainBatches:
  """Makes the training batch of any step: `batches(step)`.

  A pure function of the step: the sampler chooses its examples, their lengths
  decide their places. Neither the bucket nor the number of processes moves an
  example.

  Attributes:
    shares: name of a task -> its intended share of the examples.
    loss_weights: name of a task -> factor of the loss of its examples.
    class_weights: name of a task with class weights -> `Task.target_weights`.
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
      tasks: the heads of the model.
      task_ids: the head of each task of the sampler.
      features: the training rows of each of these tasks.
      teachers: for each of these tasks, float32 [rows, outputs] parallel to
        its features, then to its rows without labels; or [tokens, outputs]:
        probabilities, or the 0-1 prediction. None: the gold target stands in.
      sampler: chooses the examples of a step.
      packing: how they are put into rows; without `row_buckets`, B is what
        they fill.
      rows_multiple: B is rounded up to a multiple of it, for the mesh.
      own_rows: B -> the rows of a batch that this process makes, ascending;
        None: all.
      without_labels: of each task, rows that the sampler counts after those of
        the features, and that only the teacher labels; empty: no task has any.

    Raises:
      errors.UserError: an example's label is missing or unknown to its head.
      ValueError: a teacher has another shape, or is missing for rows without
        labels.
    """
    self._sampler = sampler
    self._packing = packing
    self._multiple = rows_multiple
    self._own_rows = own_rows
    self._heads = np.asarray(task_ids, np.int32)
    self._slots = packing.used_slots
    self._buckets = (packing.enabled and packing.row_buckets) or (1,)
    without_labels = without_labels or [None] * len(features)
    # A task's rows with labels, then those without.
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
    # Of each row: factor of its loss besides that of its task.
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
    """Returns the batch of a step, or only the rows of this process."""
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
    """Returns how many rows a step's examples fill, before rounding up."""
    task, row = self._sampler(step)
    return self._pack(self._lengths[self._bases[task] + row]).num_rows

  def _pack(self, lengths: np.ndarray) -> packing_lib.Packing:
    """Assigns a row and a slot to each example."""
    if not self._packing.enabled:
      return packing_lib.one_per_row(len(lengths))
    return packing_lib.pack(lengths, self._packing.row_length, self._slots)


def evaluation_batches(
  features: shards.Columns | unlabelled.Held,
  task_id: int | np.ndarray,
  num_outputs: int,
  packing: config_lib.PackingConfig,
  rows: int,
  only: np.ndarray | None = None,
  last_sizes: Sequence[int] = (),
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
  """Yields equal-shaped batches with every example once, longest first.

  Args:
    features: the features of a split, or of texts.
    task_id: the head of all rows, or [N] of each row.
    num_outputs: C.
    packing: how examples are put into rows.
    rows: B; the last batch is padded to it.
    only: [n] int64, the examples to read; None: all of them.
    last_sizes: numbers of rows, ascending, to the least of which the last batch
      is padded instead.

  Yields:
    [B, S] int64, the example in each slot, -1 if it is empty; and a batch
    as for training, with targets of zeros and weights of ones.
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
  num_batches = -(-packed.num_rows // rows)
  bounds = np.searchsorted(packed.row[order], rows * np.arange(num_batches + 1))
  for number in range(num_batches):
    if last_sizes and number == num_batches - 1:
      left = packed.num_rows - number * rows
      size = packing_lib.bucket(left, last_sizes, 1)
    else:
      size = rows
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
      gold=np.zeros((len(example), num_outputs), np.float32),
      teacher=np.zeros((len(example), num_outputs), np.float32),
      weight=np.ones(len(example), np.float32),
    )
    cell = places.row * slots + places.slot
    yield packing_lib.scatter(example + 1, cell, (size, slots)) - 1, batch


def _check_labels(task: task_lib.Task, columns: shards.Columns) -> None:
  """Raises if a training example has a missing or unknown label."""
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
  """Concatenates the tokens of n examples, each a slice of its own array."""
  if not len(begins):
    return np.empty(0, np.int32)
  spans = zip(values, begins.tolist(), (begins + lengths).tolist())
  return np.concatenate([array[begin:end] for array, begin, end in spans])


def prefetch(
  make: Callable[[int], Item], steps: Iterable[int], depth: int
) -> Iterator[Item]:
  """Yields `make(step)` for each step, made ahead in a background thread.

  The thread ends when the steps are done, when `make` raises, or when the
  iterator is closed or deleted.

  Args:
    make: called in the thread alone, one call at a time.
    steps: its arguments.
    depth: items made ahead at most, at least 1.

  Yields:
    The results in the order of the steps.

  Raises:
    Whatever `make` raises, in place of that item.
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
