"""Folds of the training rows; the oracles are counts and a plain loop."""

import collections
import dataclasses

import numpy as np
import pytest

from bam_jax import errors
from bam_jax.data import folds
from bam_jax.tasks import glue

_UIDS = tuple(f't/train/{row}' for row in range(23))
_WITH_COPIES = _UIDS + tuple(f'{uid}~swap' for uid in _UIDS)


def _left_out(uids, of, seed=0) -> list[set[str]]:
  """The uids of each fold."""
  return [
    {uids[row] for row in folds.split(uids, folds.Fold(n + 1, of, seed))[1]}
    for n in range(of)
  ]


def test_windows_of_an_example_are_in_one_fold():
  windows = [f'{uid}{end}' for uid in _UIDS for end in ('', '~1', '~2')]
  for part, alone in zip(_left_out(windows, 3), _left_out(_UIDS, 3)):
    assert part == {f'{uid}{end}' for uid in alone for end in ('', '~1', '~2')}


@pytest.mark.parametrize('uids', [_UIDS, _WITH_COPIES], ids=['plain', 'swap'])
@pytest.mark.parametrize('of', [2, 5, 23])
def test_every_row_is_in_one_fold_and_folds_are_of_one_size(uids, of):
  parts = _left_out(uids, of)
  times = collections.Counter(uid for part in parts for uid in part)
  assert times == dict.fromkeys(uids, 1)
  copies = len(uids) // len(_UIDS)
  sizes = {len(part) // copies for part in parts}
  assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize('number', [1, 2, 3])
def test_the_rest_is_trained_on(number):
  kept, left_out = folds.split(_WITH_COPIES, folds.Fold(number, 3, 4))
  assert kept.dtype == left_out.dtype == np.int64
  assert np.all(np.diff(kept) > 0) and np.all(np.diff(left_out) > 0)
  assert sorted([*kept, *left_out]) == list(range(46))


@pytest.mark.parametrize('of', [2, 5, 23])
def test_a_row_and_its_swapped_copy_are_in_one_fold(of):
  for part in _left_out(_WITH_COPIES, of):
    for uid in part:
      assert uid.removesuffix('~swap') in part
      assert f'{uid.removesuffix("~swap")}~swap' in part


def test_folds_follow_from_seed_and_uids_alone():
  """Not from the order of the rows, nor from whether pairs are swapped."""
  parts = _left_out(_UIDS, 5)
  assert _left_out(_UIDS[::-1], 5) == parts
  swapped = _left_out(_WITH_COPIES[::-1], 5)
  assert [part & set(_UIDS) for part in swapped] == parts
  assert _left_out(_UIDS, 5, seed=1) != parts


def test_folds_stay_what_they_were():
  """Oracle: the ranks of the bits that NumPy promises for this key."""
  uids = [f't/train/{row}' for row in range(9)]
  sequence = np.random.SeedSequence((4, 0, 0, 7))
  bits = np.random.PCG64(sequence).random_raw(9)
  # 9 takes 4 bits, which are left for the rank itself.
  order = sorted(range(9), key=lambda row: (int(bits[row]) >> 4, row))
  expected = [{uids[k] for k in range(9) if order[k] % 2 == n} for n in (0, 1)]
  assert _left_out(uids, 2, seed=7) == expected


def test_fewer_rows_than_folds_are_refused():
  with pytest.raises(
    errors.UserError,
    match=r'^config.distill.folds=24: the task of t/train/0 has only 23'
    r' training rows; give at most',
  ):
    folds.split(_WITH_COPIES, folds.Fold(1, 24, 0))


class _Rows:
  """Features of text pairs, a token per letter: [CLS] a [SEP] b [SEP].

  RoBERTa has two `separators` between the texts. In those of a bi-encoder, the
  second text has a [CLS] too.
  """

  def __init__(self, rows, separators=1, is_bi_encoder=False):
    self.uids = [uid for uid, _, _ in rows]
    between = separators * (1,) + is_bi_encoder * (0,)
    ids = [
      [0, *map(ord, a), *between, *map(ord, b), 1] for _, (a, b), _ in rows
    ]
    self._ids = np.concatenate(ids).astype(np.int32)
    self._offsets = np.cumsum([0, *map(len, ids)])
    self._fixed = {
      'length_a': np.array([1 + len(a) + separators for _, (a, _), _ in rows]),
      'label': np.array([label for *_, label in rows], np.float32),
    }

  def __len__(self):
    return len(self.uids)

  def ragged(self, name):
    assert name == 'input_ids'
    return self._ids, self._offsets

  def fixed(self, name):
    return self._fixed[name]


def _text(number: int) -> str:
  return chr(97 + number % 26) * (2 + number // 26)


def _pairs(count, label=lambda n: n % 2):
  return [
    (f'x/train/{n}', (_text(n), _text(n + count)), label(n))
    for n in range(count)
  ]


def _held_out(
  rows,
  fraction=0.1,
  most=2000,
  task='mrpc',
  separators=1,
  is_bi_encoder=False,
):
  """Uids that are held out; the others are trained on."""
  kept, left_out = folds.hold_out(
    dataclasses.replace(glue.TASKS[task], is_bi_encoder=is_bi_encoder),
    _Rows(rows, separators, is_bi_encoder),
    folds.HeldOut(fraction, most),
  )
  assert sorted([*kept, *left_out]) == list(range(len(rows)))
  return {rows[i][0] for i in left_out}


@pytest.mark.parametrize(
  ('count', 'fraction', 'most', 'held_out'),
  [(200, 0.1, 2000, 20), (200, 0.1, 7, 7), (5, 0.1, 2000, 1), (2, 0.5, 9, 1)],
)
def test_so_many_examples_are_held_out(count, fraction, most, held_out):
  rows = _pairs(count)
  found = _held_out(rows, fraction, most)
  assert len(found) == held_out
  # Whatever the order of the rows.
  assert _held_out(rows[::-1], fraction, most) == found


def test_held_out_labels_are_as_frequent_as_all():
  """By hand: 30 of 300 rows, of which a fifth and a tenth are rare."""
  label = [0, 1, 0, 2, 0, 0, 0, 1, 0, 0]
  rows = _pairs(300, lambda n: label[n % 10])
  found = _held_out(rows, task='mnli')
  labels = collections.Counter(row[2] for row in rows if row[0] in found)
  assert labels == {0: 21, 1: 6, 2: 3}
  # Scores too: the mean of the held-out ones is that of all.
  scores = np.random.default_rng(0).uniform(0, 5, 300)
  rows = _pairs(300, lambda n: scores[n])
  found = _held_out(rows, task='stsb')
  mean = np.mean([row[2] for row in rows if row[0] in found])
  assert abs(mean - scores.mean()) < 0.1  # A random third of rows errs by 0.26.


def test_copies_and_windows_leave_with_their_row():
  rows = _pairs(60)
  alone = _held_out(rows)
  for end, text in (('~swap', ''), ('~1', 'other')):
    copies = [
      (uid + end, (texts[1], texts[0] + text), label)
      for uid, texts, label in rows
    ]
    found = _held_out([*rows, *copies])
    assert found == alone | {uid + end for uid in alone}


@pytest.mark.parametrize(
  ('separators', 'is_bi_encoder'), [(1, False), (2, False), (1, True)]
)
def test_rows_with_equal_texts_leave_together(separators, is_bi_encoder):
  rows = _pairs(50)
  repeated = [
    (f'x/train/{100 + n}', texts[:: (-1) ** n], 1 - label)
    for n, (_, texts, label) in enumerate(rows)
  ]
  found = _held_out(
    [*rows, *repeated],
    0.2,
    separators=separators,
    is_bi_encoder=is_bi_encoder,
  )
  assert len(found) == 20
  for n, (uid, *_) in enumerate(rows):
    assert (uid in found) == (f'x/train/{100 + n}' in found)


def test_nothing_is_held_out_of_one_text():
  rows = [(f'x/train/{n}', ('ab', 'cd'), 0) for n in range(3)]
  with pytest.raises(
    errors.UserError,
    match=r'^config\.search or patience: mrpc has 1 distinct training rows, so',
  ):
    _held_out(rows)
