"""Teachers' targets; the oracles are numbers computed by hand."""

import math

import numpy as np
import pytest

from bam_jax import errors
from bam_jax.data import folds
from bam_jax.data import prepare
from bam_jax.data import shards
from bam_jax.distillation import logit_sets
from tests.distillation import tiny_tasks

_MOOD = tiny_tasks.make_task(
  'mood', 'classification', 'accuracy', labels=('down', 'up')
)
_CLOSENESS = tiny_tasks.make_task(
  'closeness', 'regression', 'pearson', scale=(0.0, 5.0)
)
_PRINT = {'rows': 'abc'}


def _features(tmp_path, rows=3) -> shards.Columns:
  records = (
    {
      'uid': f't/train/{n}',
      'input_ids': np.array([1]),
      'length_a': 1,
      'label': 0,
    }
    for n in range(rows)
  )
  shards.write(tmp_path / 'features', shards.feature_fields(), records, _PRINT)
  return shards.open(tmp_path / 'features', shards.feature_fields(), None)


def _teacher(directory, task, logits, order=None, fingerprint=None, **metadata):
  """Writes logits, one list a row, in a given order of the rows."""
  order = range(len(logits)) if order is None else order
  shards.write(
    directory,
    shards.logits_fields(task.num_outputs),
    (
      {'uid': f't/train/{n}', 'logits': np.array(logits[n], np.float32)}
      for n in order
    ),
    fingerprint or _PRINT,
    {**prepare.label_metadata(task), **metadata},
  )
  return logit_sets.LogitSet(directory, _PRINT)


def _log_odds(p):
  """Logits of two classes whose softmax is (1 - p, p)."""
  return [0.0, math.log(p / (1 - p))]


def test_probabilities_are_averaged(tmp_path):
  """Not logits: those of 0.9 and 0.5 average to 0.75, not to 0.7."""
  one = _teacher(
    tmp_path / 'one', _MOOD, [_log_odds(p) for p in (0.9, 0.2, 0.5)]
  )
  two = _teacher(
    tmp_path / 'two', _MOOD, [_log_odds(p) for p in (0.5, 0.6, 0.5)]
  )
  targets = logit_sets.read_probs(
    [[one], [two]], _features(tmp_path), _MOOD, 1.0
  )
  assert targets.dtype == np.float32
  np.testing.assert_allclose(
    targets, [[0.3, 0.7], [0.6, 0.4], [0.5, 0.5]], rtol=0, atol=1e-6
  )


def test_temperature_divides_the_logits(tmp_path):
  """Odds of 9 become odds of 9 ** (1 / 2) = 3."""
  one = _teacher(tmp_path / 'one', _MOOD, [_log_odds(0.9)])
  targets = logit_sets.read_probs([[one]], _features(tmp_path, 1), _MOOD, 2.0)
  np.testing.assert_allclose(targets, [[0.25, 0.75]], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
  ('head', 'expected'),
  [
    # Odds of 3 and of 1: 0.75 and 0.5; of 1 / 3 and 1: 0.25 and 0.5.
    ('sigmoid', [[0.625], [0.375]]),
    # The prediction itself, which may leave 0-1.
    ('linear', [[math.log(3) / 2], [-math.log(3) / 2]]),
  ],
  ids=['sigmoid', 'linear'],
)
def test_scores_are_averaged_after_the_activation(tmp_path, head, expected):
  log_3 = math.log(3)
  one = _teacher(tmp_path / 'one', _CLOSENESS, [[log_3], [-log_3]])
  two = _teacher(tmp_path / 'two', _CLOSENESS, [[0.0], [0.0]])
  targets = logit_sets.read_probs(
    [[one], [two]], _features(tmp_path, 2), _CLOSENESS.with_head(head), 1.0
  )
  np.testing.assert_allclose(targets, expected, rtol=0, atol=1e-6)


def test_rows_are_joined_by_uid(tmp_path):
  """The teacher knows a row more, and all in another order."""
  probabilities = (0.1, 0.2, 0.3, 0.4)
  one = _teacher(
    tmp_path / 'one',
    _MOOD,
    [_log_odds(p) for p in probabilities],
    order=(2, 3, 0, 1),
  )
  targets = logit_sets.read_probs([[one]], _features(tmp_path), _MOOD, 1.0)
  np.testing.assert_allclose(
    targets[:, 1], probabilities[:3], rtol=0, atol=1e-6
  )


@pytest.mark.parametrize(
  ('logits', 'options', 'message'),
  [
    ([[0, 1], [0, 1]], {}, r'no logits for t/train/2; remove the folder'),
    (
      [[0, 1], [0, math.nan], [0, 1]],
      {},
      r'the logits of t/train/1 are not finite; remove',
    ),
    (
      [[0, 1]] * 3,
      {'labels': ['up', 'down']},
      r"label order \['up', 'down'\], but mood has \['down', 'up'\]",
    ),
    (
      [[0, 1]] * 3,
      {'fingerprint': {'rows': 'xyz'}},
      r"made from other inputs: rows was 'xyz', is 'abc'",
    ),
  ],
  ids=['missing-row', 'not-finite', 'label-order', 'other-rows'],
)
def test_an_unfit_set_is_refused(tmp_path, logits, options, message):
  sound = _teacher(tmp_path / 'sound', _MOOD, [[0, 1]] * 3)
  unfit = _teacher(tmp_path / 'unfit', _MOOD, logits, **options)
  with pytest.raises(errors.UserError, match=message) as error:
    logit_sets.read_probs([[sound], [unfit]], _features(tmp_path), _MOOD, 1.0)
  assert str(error.value).startswith(f'{unfit.directory}: ')
  assert '\n' not in str(error.value)


def test_another_number_of_classes_is_refused(tmp_path):
  three = tiny_tasks.make_task(
    'mood', 'classification', 'accuracy', labels=('down', 'even', 'up')
  )
  one = _teacher(tmp_path / 'one', three, [[0, 1, 2]] * 3)
  with pytest.raises(
    errors.UserError, match=r'float x 3\); .*float x 2\) is expected'
  ):
    logit_sets.read_probs([[one]], _features(tmp_path), _MOOD, 1.0)


def _folded(tmp_path, seed, number, probabilities, rows=None, of=3):
  """The set of a run that left a fold of nine rows out, in it these `rows`."""
  uids = [f't/train/{n}' for n in range(9)]
  fold = folds.Fold(number, of, seed)
  if rows is None:
    rows = [uids[row] for row in folds.split(uids, fold)[1]]
  directory = tmp_path / f'{seed}-{number}'
  fingerprint = logit_sets.fingerprint(
    _features(tmp_path, 9), 'run', 'params', fold
  )
  shards.write(
    directory,
    shards.logits_fields(2),
    (
      {
        'uid': uid,
        'logits': np.array(
          _log_odds(probabilities[uids.index(uid)]), np.float32
        ),
      }
      for uid in rows
    ),
    fingerprint,
    prepare.label_metadata(_MOOD),
  )
  return logit_sets.LogitSet(directory, fingerprint, fold)


def test_folds_are_joined_and_seeds_are_averaged(tmp_path):
  """Row by row the mean of two teachers, each of three runs."""
  one = [(n + 1) / 20 for n in range(9)]
  two = [0.9 - n / 15 for n in range(9)]
  targets = logit_sets.read_probs(
    [
      # In any order.
      [_folded(tmp_path, 0, number, one) for number in (2, 3, 1)],
      [_folded(tmp_path, 5, number, two) for number in (1, 2, 3)],
    ],
    _features(tmp_path, 9),
    _MOOD,
    1.0,
  )
  expected = [(a + b) / 2 for a, b in zip(one, two)]
  np.testing.assert_allclose(targets[:, 1], expected, rtol=0, atol=1e-6)


def _fold_uids(number, of=3, seed=0) -> list[str]:
  uids = [f't/train/{n}' for n in range(9)]
  fold = folds.Fold(number, of, seed)
  return [uids[row] for row in folds.split(uids, fold)[1]]


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    (
      [*_fold_uids(1), _fold_uids(2)[0]],
      rf'has logits for {_fold_uids(2)[0]}, on which its teacher was trained;',
    ),
    (_fold_uids(1)[1:], rf'has no logits for {_fold_uids(1)[0]}; remove'),
    (
      [*_fold_uids(1), _fold_uids(1)[1]],
      rf'has two rows of logits for {_fold_uids(1)[1]}; remove',
    ),
  ],
  ids=['seen-in-training', 'missing', 'twice'],
)
def test_a_fold_of_other_rows_is_refused(tmp_path, rows, message):
  sound = [_folded(tmp_path, 0, number, [0.5] * 9) for number in (2, 3)]
  unfit = _folded(tmp_path, 0, 1, [0.5] * 9, rows)
  with pytest.raises(errors.UserError, match=message) as error:
    logit_sets.read_probs([[*sound, unfit]], _features(tmp_path, 9), _MOOD, 1.0)
  assert str(error.value).startswith(f'{unfit.directory}: ')
  assert '\n' not in str(error.value)


def test_the_set_of_another_fold_is_refused(tmp_path):
  """The manifest tells which one its run left out."""
  there = _folded(tmp_path, 0, 2, [0.5] * 9)
  fold = folds.Fold(1, 3, 0)
  fingerprint = {
    **there.fingerprint,
    'left_out': {'number': 1, 'of': 3, 'seed': 0},
  }
  with pytest.raises(
    errors.UserError,
    match=r'inputs: left_out.number was 2, is 1\. Undo',
  ):
    logit_sets.read_probs(
      [[logit_sets.LogitSet(there.directory, fingerprint, fold)]],
      _features(tmp_path, 9),
      _MOOD,
      1.0,
    )


@pytest.mark.parametrize(
  ('numbers', 'times'), [((1, 2), 0), ((1, 2, 3, 3), 2)], ids=['none', 'two']
)
def test_a_row_is_labelled_by_one_run_of_a_teacher(tmp_path, numbers, times):
  sets = {n: _folded(tmp_path, 0, n, [0.5] * 9) for n in set(numbers)}
  with pytest.raises(ValueError, match=rf'^row \d: {times} of . runs label'):
    logit_sets.read_probs(
      [[sets[n] for n in numbers]], _features(tmp_path, 9), _MOOD, 1.0
    )


_TAGS = tiny_tasks.make_task('tags', 'tagging', 'span_f1', labels=('O', 'B-X'))


def _tagged(tmp_path, lengths=(3, 5, 4)) -> shards.Columns:
  records = (
    {
      'uid': f't/train/{n}',
      'input_ids': np.ones(length, np.int64),
      'length_a': length,
      'label': np.zeros(length, np.float32),
    }
    for n, length in enumerate(lengths)
  )
  fields = shards.feature_fields(None)
  shards.write(tmp_path / 'features', fields, records, _PRINT)
  return shards.open(tmp_path / 'features', fields, None)


def _of_tokens(directory, lengths, order, probability=0.25, **changes):
  """Writes the log-odds of a probability a token, that of row n in row n."""
  logits = [
    np.tile(np.float32(_log_odds((n + 1) * probability)), (lengths[n], 1))
    for n in order
  ]
  source = logit_sets.LogitSet(directory, _PRINT)
  logit_sets.write(
    source,
    [f't/train/{n}' for n in order],
    np.concatenate(logits) if not changes else changes['logits'],
    prepare.label_metadata(_TAGS),
    np.array([lengths[n] for n in order]),
  )
  return source


def test_tokens_have_teachers_too(tmp_path):
  features = _tagged(tmp_path)
  one = _of_tokens(tmp_path / 'one', (3, 5, 4), (2, 0, 1))
  two = _of_tokens(tmp_path / 'two', (3, 5, 4), (0, 1, 2), 0.125)
  targets = logit_sets.read_probs([[one], [two]], features, _TAGS, 1.0)
  mean = np.repeat([0.1875, 0.375, 0.5625], [3, 5, 4])
  np.testing.assert_allclose(targets[:, 1], mean, rtol=0, atol=1e-6)
  np.testing.assert_allclose(targets.sum(-1), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
  ('lengths', 'changes', 'message'),
  [
    ((3, 4, 5), {}, 'the logits of t/train/1 do not fit its tokens; remove'),
    (
      (3, 5, 4),
      {'logits': np.float32([[0, 0]] * 7 + [[0, np.inf]] + [[0, 0]] * 4)},
      'the logits of t/train/1 are not finite; remove',
    ),
  ],
  ids=['lengths', 'infinite'],
)
def test_logits_of_other_tokens_are_refused(
  tmp_path, lengths, changes, message
):
  features = _tagged(tmp_path)
  unfit = _of_tokens(tmp_path / 'one', lengths, (0, 1, 2), **changes)
  with pytest.raises(errors.UserError, match=message):
    logit_sets.read_probs([[unfit]], features, _TAGS, 1.0)
