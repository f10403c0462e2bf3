"""Tests of single pairs, against enumeration and arithmetic by hand."""

import itertools

import numpy as np
import pytest
import scipy.stats

from bam_jax import config as config_lib
from bam_jax.reporting import pairs
from bam_jax.reporting import statistics

_TASKS = ('word', 'pair', 'odd')


def _config(own=None, **fields):
  return config_lib.Config(tasks=_TASKS, custom_variants=own or {}, **fields)


def test_a_pair_by_hand():
  by_variant = dict(
    single={'average': [1.0, 2.0, 3.0]}, multi={'average': [2.5, 4.0, 6.0]}
  )
  (table,) = pairs.tables(_config(), by_variant)
  assert (table['kind'], table['task']) == ('multi_task', None)
  (row,) = table['rows']
  assert (row['variant'], row['baseline']) == ('multi', 'single')
  assert row['column'] == 'average'
  assert row['medians'] == [4.0, 2.0] and row['seeds'] == [3, 3]
  # The nine differences: -.5 .5 1 1.5 2 3 3 4 5.
  assert row['shift'] == 2.0
  # Two of 20 splits have a U of 8 or 9, and two of 0 or 1.
  assert row['p_value'] == pytest.approx(4 / 20)
  assert (row['low'], row['high'], row['stars']) == (None, None, '')
  assert row['reason'] == 'not enough seeds'


def test_a_table_is_corrected_as_one_and_tables_apart():
  low, high = [1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 9.5]
  by_variant = dict(
    single={'word': low, 'pair': low, 'average': low},
    multi={'word': high, 'pair': low[::-1], 'average': high},
    single_to_multi={'word': low, 'pair': low, 'average': low},
  )
  multi, taught = pairs.tables(_config(), by_variant)
  assert [row['column'] for row in multi['rows']] == ['word', 'pair', 'average']
  word, pair, average = multi['rows']
  # 2 of 252 splits, times 3 tests.
  assert word['p_value'] == average['p_value'] == pytest.approx(2 / 252)
  assert word['corrected'] == pytest.approx(6 / 252)
  assert word['stars'] == '*' and word['shift'] > 0
  assert pair['reason'] == 'not significant' and pair['shift'] == 0.0
  assert taught['kind'] == 'teachers'
  # Two-sided: a loss is found as well as a gain.
  assert taught['rows'][0]['shift'] < 0 and taught['rows'][0]['stars'] == '*'


def test_own_variants_stand_against_what_they_are_like():
  own = {
    'slow': config_lib.VariantConfig(like='multi'),
    'some': config_lib.VariantConfig(
      like='single_to_multi', tasks=('word', 'odd')
    ),
  }
  scores = {'word': [1.0, 2.0], 'odd': [1.0, 2.0], 'average': [1.0, 2.0]}
  by_variant = dict(
    multi=scores,
    single_to_multi=scores,
    slow=scores,
    some={'word': [3.0, 4.0], 'odd': [3.0, 4.0]},
  )
  found = pairs.tables(_config(own), by_variant)
  (table,) = (t for t in found if t['kind'] == 'ablations')
  assert [
    (r['variant'], r['baseline'], r['column']) for r in table['rows']
  ] == [
    ('slow', 'multi', 'average'),
    ('some', 'single_to_multi', 'word'),
    ('some', 'single_to_multi', 'odd'),
  ]
  assert [row['shift'] for row in table['rows']] == [0.0, 2.0, 2.0]


def test_what_starts_from_another_stands_against_that_too():
  own = {
    'b_tuned': config_lib.VariantConfig(like='single', start='multi'),
    'a_slow': config_lib.VariantConfig(like='multi'),
  }
  scores = {
    'single': [1.0, 2.0],
    'multi': [2.0, 3.0],
    'b_tuned': [5.0, 6.0],
    'a_slow': [2.0, 3.0],
  }
  by_variant = {name: {'average': v} for name, v in scores.items()}
  found = pairs.tables(
    _config(own, variants=('single', 'multi', *own)), by_variant
  )
  (table,) = (t for t in found if t['kind'] == 'ablations')
  assert [(r['variant'], r['baseline'], r['shift']) for r in table['rows']] == [
    ('b_tuned', 'single', 4.0),
    ('b_tuned', 'multi', 3.0),
    ('a_slow', 'multi', 0.0),
  ]


def test_a_study_is_of_the_task_that_sets_share_best_first():
  own = {
    f'word_with_{other}': config_lib.VariantConfig(
      like='multi', tasks=('word', other)
    )
    for other in ('pair', 'odd')
  }
  by_variant = dict(
    single={'word': [50.0, 51.0], 'pair': [1.0, 2.0], 'odd': [1.0, 2.0]},
    multi={'word': [60.0, 61.0]},
    word_with_pair={'word': [40.0, 41.0], 'pair': [1.0, 2.0]},
    word_with_odd={'word': [70.0, 71.0], 'odd': [1.0, 2.0]},
  )
  found = pairs.tables(_config(own), by_variant)
  (study,) = (t for t in found if t['kind'] == 'study')
  assert study['task'] == 'word'
  rows = study['rows']
  assert [(row['variant'], row['medians'][0]) for row in rows] == [
    ('word_with_odd', 70.5),
    ('multi', 60.5),
    ('single', 50.5),
    ('word_with_pair', 40.5),
  ]
  assert {row['baseline'] for row in rows} == {'single'}
  assert [row['p_value'] is None for row in rows] == [False, False, True, False]
  # Three tests: the baseline against itself is none.
  assert rows[0]['corrected'] == pytest.approx(min(1.0, 3 * rows[0]['p_value']))


def test_nothing_to_compare_makes_no_table():
  assert pairs.tables(_config(), {}) == []
  alone = dict(single={'word': [1.0, 2.0]})
  assert pairs.tables(_config(), alone) == []


def test_one_seed_is_no_test():
  by_variant = dict(single={'word': [1.0]}, multi={'word': [3.0]})
  (table,) = pairs.tables(_config(), by_variant)
  (row,) = table['rows']
  assert row['p_value'] is None and row['shift'] == 2.0
  assert row['reason'] == 'not enough seeds'


def test_interval_holds_the_shifts_that_the_test_does_not_reject():
  """Of 5 and 6 seeds, with U's distribution counted out here."""
  rng = np.random.default_rng(3)
  student, baseline = rng.normal(2, 1, 5), rng.normal(0, 1, 6)
  low, high = pairs.shift_interval(student, baseline)

  def p_value(moved):
    ranks = scipy.stats.rankdata([*(student - moved), *baseline])
    center = 5 * 12 / 2
    sums = [sum(ranks[list(c)]) for c in itertools.combinations(range(11), 5)]
    far = abs(sum(ranks[:5]) - center)
    return np.mean([abs(s - center) >= far - 1e-9 for s in sums])

  assert p_value(low + 1e-6) > 0.05 >= p_value(low - 1e-6)
  assert p_value(high - 1e-6) > 0.05 >= p_value(high + 1e-6)


@pytest.mark.parametrize('seeds', [2, 4, 6, 8, 9, 20])
def test_smallest_p_value_is_twice_that_of_one_side(seeds):
  test = statistics.MANN_WHITNEY
  found = statistics.smallest_p_value(test, seeds, seeds)
  scores = np.arange(2 * seeds)
  method = 'exact' if seeds <= 8 else 'asymptotic'
  expected = scipy.stats.mannwhitneyu(
    scores[seeds:], scores[:seeds], method=method
  ).pvalue
  assert found == pytest.approx(expected)
