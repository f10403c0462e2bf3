"""Folds of the training rows; the oracles are counts and a plain loop."""

import collections

import numpy as np
import pytest

from bam_jax import errors
from bam_jax.data import folds

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
