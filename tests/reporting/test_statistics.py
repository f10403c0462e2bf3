"""Statistics against scipy, plain enumeration and arithmetic by hand."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from bam_jax.reporting import statistics

_SMALL = {
  'clear': ([7.0, 8.0, 9.0, 9.5], [1.0, 2.0, 3.0, 4.0]),
  'mixed': ([3.0, 8.0, 9.0], [1.0, 2.0, 7.0, 8.5]),
  'ties': ([2.0, 3.0, 3.0, 5.0], [2.0, 2.0, 3.0, 4.0]),
  # Equal means, which differ by rounding.
  'rounding': ([70.1, 70.4, 70.7, 70.2], [70.7, 70.1, 70.2, 70.4]),
  'lower': ([1.0, 2.0, 2.5], [2.0, 4.0, 6.0]),
}


def _rng(seed=0):
  return np.random.default_rng(seed)


def _splits(student, baseline):
  """All ways to deal the scores into groups of these sizes."""
  pooled = np.array([*student, *baseline])
  everyone = range(len(pooled))
  for chosen in itertools.combinations(everyone, len(student)):
    rest = [i for i in everyone if i not in chosen]
    yield pooled[list(chosen)], pooled[rest]


def _enumerated(statistic, student, baseline):
  """Share of splits whose statistic is at least the observed one."""
  observed = statistic(np.array(student), np.array(baseline))
  values = [statistic(a, b) for a, b in _splits(student, baseline)]
  return np.mean([value >= observed - 1e-9 for value in values])


def _u(a, b):
  return sum((x > y) + 0.5 * (x == y) for x in a for y in b)


def _welch(a, b):
  difference = sum(a) / len(a) - sum(b) / len(b)
  error = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
  if error == 0:
    return math.copysign(math.inf, difference) if difference else 0.0
  return difference / error


def _medians(a, b, axis=-1):
  return np.median(a, axis) - np.median(b, axis)


def test_summary_by_hand():
  found = statistics.summarise([2.0, 4.0, 4.0, 10.0])
  assert (found['seeds'], found['median'], found['mean']) == (4, 4.0, 5.0)
  # Squares of the deviations: 9 + 1 + 1 + 25 = 36, over 3.
  assert found['deviation'] == pytest.approx(math.sqrt(12.0))


@pytest.mark.parametrize('seeds', [2, 3, 5, 6, 7, 10, 19, 20, 50])
def test_median_interval_covers_as_the_binomial_distribution_says(seeds):
  """Covers while k to n - k of the seeds are below the median."""
  low, high, coverage = statistics.median_interval(range(1, seeds + 1))
  assert low + high == seeds + 1
  below = scipy.stats.binom(seeds, 0.5).pmf(range(int(low), int(high)))
  assert coverage == pytest.approx(sum(below), abs=1e-12)
  if seeds < 6:  # Not even the range is enough.
    assert low == 1 and coverage < 0.95
  else:
    assert coverage >= 0.95 > coverage - 2 * below[0]


@pytest.mark.parametrize(
  ('seeds', 'places', 'covers'), [(5, (1, 5), 0.9375), (20, (6, 15), 0.9586)]
)
def test_median_interval_covers_what_it_says_by_simulation(
  seeds, places, covers
):
  assert statistics.median_interval(range(1, seeds + 1))[:2] == places
  draws = np.sort(_rng().exponential(size=(40_000, seeds)))
  low, high = draws[:, places[0] - 1], draws[:, places[1] - 1]
  hits = np.mean((low <= math.log(2)) & (math.log(2) <= high))
  assert hits == pytest.approx(covers, abs=4 * math.sqrt(0.06 / 40_000))


def test_summary_of_one_seed_has_no_spread():
  assert statistics.summarise([61.5]) == {
    'seeds': 1, 'median': 61.5, 'mean': 61.5,
    'deviation': None, 'low': None, 'high': None, 'coverage': None,
  }  # fmt: skip


def test_summary_with_an_undefined_score_is_undefined():
  found = statistics.summarise([1.0, math.nan, 3.0])
  assert math.isnan(found['median']) and math.isnan(found['mean'])
  assert found['deviation'] is found['low'] is found['coverage'] is None


@pytest.mark.parametrize('case', _SMALL)
def test_studentised_permutation_equals_enumeration(case):
  expected = _enumerated(_welch, *_SMALL[case])
  assert statistics.permutation_test(*_SMALL[case], _rng()) == pytest.approx(
    expected, abs=1e-12
  )


@pytest.mark.parametrize('case', _SMALL)
def test_permutation_of_medians_equals_enumeration(case):
  expected = _enumerated(_medians, *_SMALL[case])
  found = statistics.permutation_test(*_SMALL[case], _rng(), _medians)
  assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('case', _SMALL)
def test_mann_whitney_equals_enumeration(case):
  expected = _enumerated(_u, *_SMALL[case])
  assert statistics.mann_whitney(*_SMALL[case]) == pytest.approx(
    expected, abs=1e-12
  )


@pytest.mark.parametrize('case', _SMALL)
def test_two_sided_mann_whitney_is_twice_the_smaller_side(case):
  student, baseline = _SMALL[case]
  sides = [
    _enumerated(_u, student, baseline),
    _enumerated(_u, baseline, student),
  ]
  found = statistics.mann_whitney(student, baseline, 'two-sided')
  assert found == pytest.approx(min(1.0, 2 * min(sides)), abs=1e-12)


def test_mann_whitney_without_ties_equals_scipys_exact_distribution():
  student, baseline = _rng(1).normal(0.8, size=8), _rng(2).normal(size=8)
  expected = scipy.stats.mannwhitneyu(
    student, baseline, alternative='greater', method='exact'
  ).pvalue
  found = statistics.mann_whitney(student, baseline)
  assert found == pytest.approx(expected, rel=1e-12)


def test_mann_whitney_of_many_seeds_is_the_normal_approximation():
  student = np.round(_rng(1).normal(1.0, size=20), 1)
  baseline = np.round(_rng(2).normal(0.5, size=20), 1)
  # U's mean and its variance with ties, and half a step for continuity.
  _, tied = np.unique([*student, *baseline], return_counts=True)
  assert tied.max() > 1
  spread = 20 * 20 / 12 * (41 - np.sum(tied**3 - tied) / (40 * 39))
  z = (_u(student, baseline) - 200 - 0.5) / math.sqrt(spread)
  assert statistics.mann_whitney(student, baseline) == pytest.approx(
    0.5 * math.erfc(z / math.sqrt(2)), rel=1e-12
  )


def test_studentised_is_welchs_t():
  student, baseline = _rng(1).normal(81, 3, 7), _rng(2).normal(80, 1, 5)
  expected = scipy.stats.ttest_ind(student, baseline, equal_var=False)
  found = statistics.studentised(student, baseline)
  assert found == pytest.approx(expected.statistic, rel=1e-12)


@pytest.mark.parametrize('unit', [1e-3, 1.0, 80.1])
def test_groups_without_spread(unit):
  # 2 of the 6 splits are without spread; one of them is the observed one.
  high, low = [3 * unit] * 2, [unit] * 2
  test = statistics.permutation_test
  assert test(high, low, _rng()) == pytest.approx(1 / 6)
  assert test(low, high, _rng()) == 1.0
  assert test(low, low, _rng()) == 1.0


def test_random_splits_come_near_all_splits_and_count_the_observed_one():
  student, baseline = _rng(1).normal(0.9, size=6), _rng(2).normal(size=6)
  exact = statistics.permutation_test(student, baseline, _rng())
  drawn = statistics.permutation_test(student, baseline, _rng(), resamples=899)
  assert drawn != exact
  assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / 900))
  far = student + 100
  floor = statistics.permutation_test(far, baseline, _rng(), resamples=99)
  assert 0.01 <= floor <= 0.02


def test_cases_on_leading_axes_are_tested_one_by_one():
  students, baselines = _rng(1).normal(size=(3, 4)), _rng(2).normal(size=(3, 4))
  for test in (
    statistics.mann_whitney,
    lambda a, b: statistics.permutation_test(a, b, _rng()),
  ):
    found = test(students, baselines)
    assert found.shape == (3,)
    for row, student, baseline in zip(found, students, baselines):
      assert row == test(student, baseline)


@pytest.mark.parametrize(
  ('p_values', 'expected'),
  [
    # Smallest first: 4 x .005, 3 x .01, 2 x .03, then not below the last.
    ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
    ([0.01, None, 0.04], [0.02, None, 0.04]),
    ([0.6, 0.9], [1.0, 1.0]),
    ([0.02, 0.02], [0.04, 0.04]),
    ([None], [None]),
    ([], []),
  ],
)
def test_holm_by_hand(p_values, expected):
  assert statistics.holm(p_values) == pytest.approx(expected)


def test_shift_by_hand():
  # Differences 1, 0, -3, 3, 2, -1.
  assert statistics.shift([5.0, 7.0], [4.0, 5.0, 8.0]) == 0.5
  assert math.isnan(statistics.shift([5.0, math.nan], [4.0, 5.0]))


@pytest.mark.parametrize('sizes', [(2, 2), (3, 4), (5, 5), (2, 6), (9, 9)])
def test_smallest_p_value_is_that_of_one_split(sizes):
  found = statistics.smallest_p_value(statistics.PERMUTATION, *sizes)
  assert found == pytest.approx(1 / math.comb(sum(sizes), sizes[0]))


def test_smallest_p_value_of_random_splits():
  # 40,116,600 splits, of which 99,999 are drawn beside the observed one.
  found = statistics.smallest_p_value(statistics.PERMUTATION, 14, 14)
  assert found == 1 / 100_000


@pytest.mark.parametrize(
  ('tests', 'seeds'),
  [
    # Splits of n and n: 6, 20, 70, 252, 924, 3432.
    (1, 4),  # 1 / 20 is not below .05
    (3, 4),  # 3 / 70 = .043
    (4, 5),  # 4 / 70 = .057
    (12, 5),  # 12 / 252 = .048
    (13, 6),
    (100, 7),  # 100 / 924 = .108, 100 / 3432 = .029
  ],
)
def test_seeds_needed_by_hand(tests, seeds):
  assert statistics.seeds_needed(tests) == seeds


def test_seeds_needed_for_more_tests_than_any_number_of_seeds_can_carry():
  """As where splits are drawn, and p is 1e-5 at least."""
  with pytest.raises(ValueError, match='5000 tests'):
    statistics.seeds_needed(5000, lambda student, baseline: 1e-5)


def _cell(seeds, gain):
  """Scores of a student that is `gain` above both of its baselines."""
  scores = np.arange(float(seeds))
  return scores + gain, [scores, scores - 0.5]


def test_too_few_seeds_are_never_a_star():
  table = {task: _cell(4, 100.0) for task in 'abcd'}
  for verdict in statistics.judge(table).values():
    # 1 / 70 would be a star alone; of four tests it is 4 / 70.
    assert verdict.p_value == pytest.approx(1 / 70)
    assert verdict.corrected == pytest.approx(4 / 70)
    assert (verdict.stars, verdict.reason) == ('', 'not enough seeds')
  del table['d']
  for verdict in statistics.judge(table).values():
    assert verdict.corrected == pytest.approx(3 / 70)
    assert (verdict.stars, verdict.reason) == ('*', '')


def test_a_cell_with_one_seed_or_no_baseline_is_no_test():
  table = {
    'one': _cell(1, 100.0),
    'none': ([], [[], []]),
    'alone': ([1.0, 2.0, 3.0, 4.0], []),
    'enough': _cell(4, 100.0),
  }
  found = statistics.judge(table)
  nothing = statistics.Verdict(None, None, '', 'not enough seeds')
  assert [found[name] for name in ('one', 'none', 'alone')] == [nothing] * 3
  # The others are not counted: 1 / 70 stays as it is.
  assert found['enough'].corrected == pytest.approx(1 / 70)


def test_a_small_cell_is_reached_after_larger_ones():
  # Holm holds the small cell's 1 / 70 against the level itself, once the other
  # has been found significant: the smallest it can get is below .05.
  found = statistics.judge({'small': _cell(4, 100.0), 'large': _cell(6, 100.0)})
  assert found['large'].corrected == pytest.approx(2 / 924)
  assert found['small'].corrected == pytest.approx(1 / 70)
  assert found['small'].stars == '*'
  # As long as the other is not, the small one is doubled.
  found = statistics.judge({'small': _cell(4, 100.0), 'large': _cell(6, 0.0)})
  assert found['small'].corrected == pytest.approx(2 / 70)
  assert found['large'].reason == 'not significant'


def test_stars_are_of_the_corrected_p_value():
  student, baseline = [3.0, 5.0, 6.0, 8.0, 9.0], [1.0, 2.0, 4.0, 5.5, 3.5]
  p = _enumerated(_welch, student, baseline)
  assert 0.025 < p < 0.05
  alone = statistics.judge({'a': (student, [baseline])})['a']
  assert (alone.p_value, alone.stars) == (pytest.approx(p), '*')
  both = statistics.judge(dict.fromkeys('ab', (student, [baseline])))['a']
  assert both.p_value == pytest.approx(p)
  assert both.corrected == pytest.approx(2 * p)
  assert (both.stars, both.reason) == ('', 'not significant')


def test_better_than_one_baseline_alone_is_no_star():
  scores = np.arange(6.0)
  found = statistics.judge({'t': (scores + 100, [scores, scores + 100])})['t']
  assert found.p_value > 0.4
  assert (found.stars, found.reason) == ('', 'not significant')


@pytest.mark.parametrize(
  ('seeds', 'stars'), [(4, '*'), (5, '**'), (6, '**'), (7, '***')]
)
def test_stars_by_level(seeds, stars):
  # 1 / 70, 1 / 252, 1 / 924 and 1 / 3432.
  assert statistics.judge({'t': _cell(seeds, 100.0)})['t'].stars == stars


def test_a_verdict_follows_from_its_cell_and_not_from_its_place():
  rng = _rng(5)
  table = {
    task: (rng.normal(0.5, size=12), [rng.normal(size=12)]) for task in 'abc'
  }
  found = statistics.judge(table)
  turned = statistics.judge(dict(reversed(table.items())))
  assert found == turned
  assert len({verdict.p_value for verdict in found.values()}) == 3
  # 2.7 million splits, of which 99,999 and the observed one are counted.
  hits = [100_000 * verdict.p_value for verdict in found.values()]
  assert hits == pytest.approx([round(hit) for hit in hits], abs=1e-6)


@pytest.mark.parametrize(
  ('function', 'scores'),
  [
    (statistics.mann_whitney, ([1.0], [1.0, 2.0])),
    (statistics.mann_whitney, ([1.0, 2.0], [1.0, math.inf])),
  ],
)
def test_scores_that_are_missing_or_not_finite_raise(function, scores):
  with pytest.raises(ValueError):
    function(*scores)
