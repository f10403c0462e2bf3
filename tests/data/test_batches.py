"""Batches: training by step, evaluation once, prefetching."""

import dataclasses
import functools
import threading
import time

import numpy as np
import pytest

from bam_jax import config
from bam_jax import errors
from bam_jax.core import packing as packing_lib
from bam_jax.core import sampling
from bam_jax.data import batches
from bam_jax.data import shards
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

PACKED = config.PackingConfig(row_length=32, slots=4, row_buckets=(10, 14))
UNPACKED = dataclasses.replace(PACKED, enabled=False)


class FakeColumns:
  """Columns in memory; every token is unique, so none can go astray."""

  def __init__(self, name, rows, seed, classes, first_token, longest=32):
    random = np.random.default_rng(seed)
    lengths = random.integers(4, longest - 7, rows)
    lengths[0] = longest
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(first_token, first_token + offsets[-1], dtype=np.int32)
    label = (
      random.integers(0, classes, rows) if classes else random.random(rows)
    )
    self._ragged = tokens, offsets
    self._fixed = {
      'length_a': random.integers(2, lengths + 1).astype(np.int32),
      'label': label.astype(np.float32),
    }
    self.uids = [f'{name}/train/{row}' for row in range(rows)]

  def __len__(self):
    return len(self.uids)

  def fixed(self, name):
    return self._fixed[name]

  def ragged(self, name):
    assert name == 'input_ids'
    return self._ragged

  def tokens(self, row):
    values, offsets = self._ragged
    return values[offsets[row] : offsets[row + 1]].tolist()


def make_task(name, labels):
  return task_lib.Task(
    name=name,
    kind=kinds.KINDS['classification' if labels else 'regression'],
    labels=labels,
    metrics=(),
    paper_metric='',
    tables={},
  )


# The sampler leaves out head 1, and has its tasks in another order.
TASKS = task_lib.TaskTable(
  (
    make_task('two', ('no', 'yes')),
    make_task('unused', ('a', 'b')),
    make_task('three', ('x', 'y', 'z')),
    make_task('score', ()),
  )
)
HEADS = (3, 0, 2)
FEATURES = (
  FakeColumns('score', 30, 0, 0, 1),
  FakeColumns('two', 50, 1, 2, 10_000),
  FakeColumns('three', 40, 2, 3, 20_000),
)
RANDOM = np.random.default_rng(3)
TEACHERS = (
  RANDOM.random((30, 1), np.float32),
  None,
  RANDOM.dirichlet((1, 1, 1), 40).astype(np.float32),
)


def make_sampler(mode='sampled', batch_size=20):
  rows = [len(columns) for columns in FEATURES]
  if mode == 'copies':
    return sampling.CopiesSampler(rows, 0.0, batch_size, 7)
  return sampling.ProportionalSampler(rows, rows, 0.75, batch_size, 7)


def make_batches(packing=PACKED, sampler=None, teachers=TEACHERS, **kwargs):
  return batches.TrainBatches(
    TASKS,
    HEADS,
    FEATURES,
    teachers,
    sampler or make_sampler(),
    packing,
    **kwargs,
  )


def test_shares_go_by_the_names_of_the_tasks():
  sampler = make_sampler()
  names = [TASKS.tasks[head].name for head in HEADS]
  assert make_batches().shares == dict(zip(names, sampler.shares.tolist()))


def plain_batch(examples, num_rows, packing, placed):
  """A batch made one token at a time.

  Args:
    examples: (columns, row, head, teacher row or None, weight) each.
    num_rows: B.
    packing: the configuration.
    placed: (row, slot, start) of each example.
  """
  slots = packing.slots if packing.enabled else 1
  batch = {
    key: np.zeros((num_rows, packing.row_length), np.int32)
    for key in ('input_ids', 'token_type_ids', 'positions', 'segment_ids')
  }
  for key in ('cls_index', 'task_id'):
    batch[key] = np.zeros((num_rows, slots), np.int32)
  for key in ('gold', 'teacher'):
    batch[key] = np.zeros((num_rows, slots, 3), np.float32)
  batch['weight'] = np.zeros((num_rows, slots), np.float32)
  for example, (r, s, start) in zip(examples, placed):
    columns, row, head, teacher, weight = example
    for i, token in enumerate(columns.tokens(row)):
      batch['input_ids'][r, start + i] = token
      if i >= columns.fixed('length_a')[row]:
        batch['token_type_ids'][r, start + i] = 1
      batch['positions'][r, start + i] = i
      batch['segment_ids'][r, start + i] = s + 1
    batch['cls_index'][r, s] = start
    batch['task_id'][r, s] = head
    batch['weight'][r, s] = weight
    label = columns.fixed('label')[row]
    if TASKS.tasks[head].kind.has_scale:
      batch['gold'][r, s, 0] = label
    else:
      batch['gold'][r, s, int(label)] = 1
    batch['teacher'][r, s] = batch['gold'][r, s]
    if teacher is not None:
      batch['teacher'][r, s] = 0
      batch['teacher'][r, s, : len(teacher)] = teacher
  return batch


def assert_equal(got, want):
  assert got.keys() == want.keys()
  for key in want:
    assert got[key].dtype == want[key].dtype, key
    np.testing.assert_array_equal(got[key], want[key], err_msg=key)


def segments(batch):
  """What each occupied slot holds, as a set of comparable values."""
  result = []
  for r, s in zip(*np.nonzero(batch['weight'])):
    inside = batch['segment_ids'][r] == s + 1
    assert batch['cls_index'][r, s] == np.argmax(inside)
    result.append(
      (
        tuple(batch['input_ids'][r, inside]),
        tuple(batch['token_type_ids'][r, inside]),
        tuple(batch['positions'][r, inside]),
        int(batch['task_id'][r, s]),
        tuple(batch['gold'][r, s].tolist()),
        tuple(batch['teacher'][r, s].tolist()),
        float(batch['weight'][r, s]),
      )
    )
  return sorted(result)


@pytest.mark.parametrize('packing', [PACKED, UNPACKED], ids=['packed', 'plain'])
@pytest.mark.parametrize(
  'teachers', [TEACHERS, (None,) * 3], ids=['kd', 'gold']
)
@pytest.mark.parametrize('mode', ['sampled', 'copies'])
def test_every_array_equals_a_plain_loop(mode, teachers, packing):
  """Oracle: plain_batch above."""
  sampler = make_sampler(mode)
  make = make_batches(packing, sampler, teachers)
  for step in (0, 1, 49):
    tasks, rows = sampler(step)
    examples = [
      (
        FEATURES[k],
        row,
        HEADS[k],
        None if teachers[k] is None else teachers[k][row],
        sampler.weights[k],
      )
      for k, row in zip(tasks, rows)
    ]
    if packing.enabled:
      lengths = [len(FEATURES[k].tokens(r)) for k, r in zip(tasks, rows)]
      packed = packing_lib.pack(np.array(lengths), 32, 4)
      placed = list(zip(packed.row, packed.slot, packed.start))
      num_rows = 10 if packed.num_rows <= 10 else 14
    else:
      placed, num_rows = [(i, 0, 0) for i in range(20)], 20
    assert_equal(make(step), plain_batch(examples, num_rows, packing, placed))


@pytest.mark.parametrize('packing', [PACKED, UNPACKED], ids=['packed', 'plain'])
@pytest.mark.parametrize('mode', ['sampled', 'copies'])
def test_each_step_holds_exactly_n_examples(mode, packing):
  make = make_batches(packing, make_sampler(mode))
  for step in range(50):
    batch = make(step)
    assert np.count_nonzero(batch['weight']) == 20
    assert len(segments(batch)) == 20


def test_unpacked_batches_hold_the_same_examples():
  packed, plain = make_batches(PACKED), make_batches(UNPACKED)
  assert plain(0)['input_ids'].shape == (20, 32)
  assert plain(0)['weight'].shape == (20, 1)
  for step in range(20):
    assert segments(packed(step)) == segments(plain(step))


def test_a_wider_bucket_only_adds_empty_rows():
  wide = dataclasses.replace(PACKED, row_buckets=(30,))
  for step in range(10):
    small, large = make_batches()(step), make_batches(wide)(step)
    for key, value in small.items():
      assert len(large[key]) == 30
      np.testing.assert_array_equal(large[key][: len(value)], value)
      assert not large[key][len(value) :].any()


def test_rows_fall_into_buckets():
  assert {len(make_batches()(step)['weight']) for step in range(50)} == {10, 14}


def test_without_buckets_a_batch_has_the_rows_that_are_filled():
  batches = make_batches(dataclasses.replace(PACKED, row_buckets=()))
  sizes = set()
  for step in range(50):
    segments = batches(step)['segment_ids']
    assert segments.any(axis=1).all()
    assert len(segments) == batches.rows_filled(step)
    sizes.add(len(segments))
  assert len(sizes) > 2


@pytest.mark.parametrize('packing', [PACKED, UNPACKED], ids=['packed', 'plain'])
@pytest.mark.parametrize('processes', [2, 4])
def test_rows_of_the_processes_make_up_the_batch(processes, packing):
  """Oracle: the batch of a single process. Rows are dealt out in turn."""
  own_rows = [
    functools.partial(lambda i, rows: np.arange(i, rows, processes), i)
    for i in range(processes)
  ]
  whole = make_batches(packing, rows_multiple=8)
  parts = [
    make_batches(packing, rows_multiple=8, own_rows=own) for own in own_rows
  ]
  for step in (0, 9):
    got = [part(step) for part in parts]
    assert len({len(part['weight']) for part in got}) == 1
    joined = {
      key: np.stack([p[key] for p in got], 1).reshape(-1, *value.shape[1:])
      for key, value in got[0].items()
    }
    assert len(joined['weight']) % 8 == 0
    assert_equal(joined, whole(step))


@pytest.mark.parametrize('packing', [PACKED, UNPACKED], ids=['packed', 'plain'])
def test_a_batch_is_a_pure_function_of_the_step(packing):
  """Oracle: the same run from its start, in order."""
  make = make_batches(packing)
  run_through = [make(step) for step in range(50)]
  for step in (49, 0, 30, 31, 30):
    assert_equal(make(step), run_through[step])
    assert_equal(make_batches(packing)(step), run_through[step])


def test_a_copied_task_carries_its_weight():
  sampler = make_sampler('copies')
  assert len(set(sampler.weights.tolist())) == 3
  batch = make_batches(sampler=sampler)(0)
  for task, head in enumerate(HEADS):
    of_task = batch['weight'][
      (batch['task_id'] == head) & (batch['weight'] > 0)
    ]
    assert len(of_task) > 0 and np.all(of_task == sampler.weights[task])


@pytest.mark.parametrize(
  ('number', 'label'), [(1, np.nan), (1, 2.0), (0, 1.5), (0, np.nan)]
)
def test_a_row_that_cannot_be_trained_on_is_an_error(
  monkeypatch, number, label
):
  labels = FEATURES[number].fixed('label').copy()
  labels[5] = label
  monkeypatch.setitem(FEATURES[number]._fixed, 'label', labels)
  with pytest.raises(errors.UserError, match=rf'train/5: {label} is not a val'):
    make_batches()


@pytest.mark.parametrize('shape', [(40, 2), (39, 3), (1, 3), (40, 1)])
def test_a_teacher_of_another_shape_is_an_error(shape):
  with pytest.raises(ValueError, match=r'three: the teacher .* \(40, 3\)'):
    make_batches(teachers=(None, None, np.ones(shape, np.float32)))


@pytest.mark.parametrize('packing', [PACKED, UNPACKED], ids=['packed', 'plain'])
@pytest.mark.parametrize('sizes', [(1,), (4,), (2, 3, 7), (64,)])
def test_evaluation_covers_every_row_exactly_once(sizes, packing):
  """The released code drops the last partial batch."""
  columns = FEATURES[1]
  covered, shapes = [], []
  for where, batch in batches.evaluation_batches(columns, 0, packing, sizes):
    slots = packing.slots if packing.enabled else 1
    rows = len(where)
    shapes.append(rows)
    assert where.shape == (rows, slots) and where.dtype == np.int64
    occupied = where >= 0
    assert where[~occupied].tolist() == [-1] * np.sum(~occupied)
    covered += where[occupied].tolist()
    placed = [
      (r, s, int(batch['cls_index'][r, s])) for r, s in np.argwhere(occupied)
    ]
    examples = [(columns, row, 0, None, 1) for row in where[occupied]]
    want = plain_batch(examples, rows, packing, placed)
    del want['gold'], want['teacher'], want['weight']
    assert_equal(batch, want)
  assert sorted(covered) == list(range(50))
  # Only the last batch may be smaller, and then no smaller size would do.
  *others, last = shapes
  assert set(others) <= {sizes[-1]} and last in sizes
  used = np.sum(occupied.any(axis=1))
  assert last == min(size for size in sizes if size >= used)


@pytest.mark.parametrize('packing', [PACKED, UNPACKED], ids=['packed', 'plain'])
def test_evaluation_of_some_rows_is_of_those_alone(packing):
  only = np.array([3, 0, 17, 44, 49, 18])
  covered = []
  for where, batch in batches.evaluation_batches(
    FEATURES[1], 0, packing, (4,), only
  ):
    for row, slot in np.argwhere(where >= 0):
      mine = batch['segment_ids'][row] == slot + 1
      tokens = batch['input_ids'][row][mine].tolist()
      assert tokens == FEATURES[1].tokens(only[where[row, slot]])
      covered.append(int(where[row, slot]))
  assert sorted(covered) == list(range(len(only)))


def test_evaluation_and_training_share_one_shape():
  train = make_batches()(0)
  sizes = (len(train['weight']),)
  _, batch = next(batches.evaluation_batches(FEATURES[2], 2, PACKED, sizes))
  assert train.keys() - batch.keys() == {'gold', 'teacher', 'weight'}
  assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
    k: (train[k].shape, train[k].dtype) for k in batch
  }


@pytest.mark.parametrize('packing', [PACKED, UNPACKED], ids=['packed', 'plain'])
def test_evaluation_starts_with_the_longest(packing):
  lengths = np.diff(FEATURES[1].ragged('input_ids')[1])
  firsts = [
    lengths[where[where[:, 0] >= 0, 0]]
    for where, _ in batches.evaluation_batches(FEATURES[1], 0, packing, (4,))
  ]
  firsts = np.concatenate(firsts)
  assert firsts[0] == 32 and np.all(np.diff(firsts) <= 0)


def test_batches_read_real_shards(tmp_path):
  """Oracle: the same columns in memory."""
  columns = []
  for number, fake in enumerate(FEATURES):
    records = [
      {
        'uid': uid,
        'input_ids': np.array(fake.tokens(row)),
        'length_a': int(fake.fixed('length_a')[row]),
        'label': float(fake.fixed('label')[row]),
      }
      for row, uid in enumerate(fake.uids)
    ]
    shards.write(tmp_path / str(number), shards.feature_fields(), records, {})
    columns.append(
      shards.open(tmp_path / str(number), shards.feature_fields(), None)
    )
  make = batches.TrainBatches(
    TASKS, HEADS, columns, TEACHERS, make_sampler(), PACKED
  )
  for step in range(3):
    assert_equal(make(step), make_batches()(step))
  for got, want in zip(
    batches.evaluation_batches(columns[0], 3, PACKED, (5,)),
    batches.evaluation_batches(FEATURES[0], 3, PACKED, (5,)),
  ):
    np.testing.assert_array_equal(got[0], want[0])
    assert_equal(got[1], want[1])


def prefetch_threads():
  return [t for t in threading.enumerate() if 'prefetch' in t.name]


def test_prefetch_keeps_the_order_and_works_in_another_thread():
  def make(step):
    return step, threading.get_ident()

  got = list(batches.prefetch(make, range(3, 40), 4))
  assert [step for step, _ in got] == list(range(3, 40))
  assert threading.get_ident() not in {thread for _, thread in got}
  assert not prefetch_threads()


def test_prefetch_makes_at_most_depth_items_ahead():
  made = []
  iterator = batches.prefetch(made.append, range(100), 3)
  for consumed in range(1, 5):
    next(iterator)
    deadline = time.monotonic() + 10
    while len(made) < consumed + 3 and time.monotonic() < deadline:
      time.sleep(0.001)
    time.sleep(0.02)
    assert len(made) == consumed + 3
  iterator.close()


def test_an_error_comes_in_the_place_of_its_item():
  def make(step):
    if step == 2:
      raise errors.UserError('step 2 is bad')
    return step

  iterator = batches.prefetch(make, range(10), 8)
  assert [next(iterator), next(iterator)] == [0, 1]
  with pytest.raises(errors.UserError, match='step 2 is bad'):
    next(iterator)
  assert list(iterator) == []
  assert not prefetch_threads()


@pytest.mark.parametrize('consumed', [1, 5])
def test_closing_the_iterator_ends_the_thread(consumed):
  iterator = batches.prefetch(lambda step: step, iter(int, 1), 2)
  for _ in range(consumed):
    next(iterator)
  assert prefetch_threads()
  iterator.close()
  assert not prefetch_threads()
