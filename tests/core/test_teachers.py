"""Arithmetic of teachers; the oracles are NumPy loops and numbers by hand."""

import numpy as np
import pytest

from bam_jax.core import teachers


def test_predictions_are_averaged_in_float32():
  rng = np.random.default_rng(0)
  each = rng.random((3, 5, 2), np.float32)
  found = teachers.mean_predictions(iter(each))
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, each.mean(axis=0), rtol=1e-6)


def test_one_teacher_is_its_own_mean():
  prediction = np.float32([[0.1, 0.9], [1 / 3, 2 / 3]])
  np.testing.assert_array_equal(
    teachers.mean_predictions([prediction]), prediction
  )


@pytest.mark.parametrize('lengths', [(1, 1, 1, 1, 1), (3, 1, 4, 2, 5)])
def test_every_row_is_of_the_run_that_left_it_out(lengths):
  """With one output a row, and with outputs of tokens."""
  offsets = np.concatenate([[0], np.cumsum(lengths)])
  folds = {10: [3], 20: [0, 4], 30: [1, 2]}
  parts = [
    (
      np.array(rows),
      np.concatenate([np.full((lengths[r], 2), run + r) for r in rows]),
    )
    for run, rows in folds.items()
  ]
  run_of = {row: run for run, rows in folds.items() for row in rows}
  expected = np.repeat([run_of[row] + row for row in range(5)], lengths)
  found = teachers.choose_out_of_fold(offsets, parts)
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, np.stack([expected] * 2, axis=-1))


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    ([[0, 1], [3]], '^row 2: 0 of 2 runs label it'),
    ([[0, 1], [1, 2, 3]], '^row 1: 2 of 2 runs label it'),
  ],
  ids=['none', 'two'],
)
def test_a_row_of_no_run_or_of_two_raises(rows, message):
  parts = [(np.array(each), np.zeros((len(each), 1))) for each in rows]
  with pytest.raises(ValueError, match=message):
    teachers.choose_out_of_fold(np.arange(5), parts)
