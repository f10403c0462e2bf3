"""Measures the false positives of each test of `reporting.statistics`.

  python -m benchmarks.false_positives --output=benchmarks/false_positives.json

Simulates variants of which none is better, holds every test against a level,
and prints the share of trials in which it says "better", in percent. Takes
about 10 minutes of one CPU core; needs no data.

The model: a development set of N examples. Example j is answered rightly by a
share q_j of the seeds, drawn from Beta(0.6, 0.2): most examples are easy, few
are open. Seed i has an effect b_i, normal, cut at 0.24 so that chances stay
between 0 and 1, and is right on example j with the chance
q_j + 4 q_j (1 - q_j) b_i. So a score is what all seeds share, plus a third of
the seed's effect, plus binomial noise; being linear in b_i, groups of unequal
spread have equal means and equal medians. Scores of 400 examples tie often.
"""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import json
import math
from pathlib import Path
import time
from typing import Literal

import numpy as np
import scipy

from bam_jax.reporting import bootstrap
from bam_jax.reporting import statistics

_CUT = 0.24
_BLOCK = 100  # Trials that share random permutations.


@dataclasses.dataclass(frozen=True)
class World:
  """A model of how scores come about.

  Attributes:
    spread: standard deviation of a seed's effect: student, each baseline.
    shared: share of the variance of the effect that seed i has in common in
      all variants.
    failing: chance that a run fails and does no better than a coin.
    own: share of the examples that suit the variants differently: their q_j
      are drawn for each variant, so that in the population of examples, but
      not on one development set, variants are equal.
    answers: whether an example counts 0 or 1; otherwise it counts its chance,
      and seeds differ by their effects alone, as on a set of many thousands.
    shift: added to the effects of the student; 0 where nothing is better.
  """

  spread: tuple[float, float] = (0.08, 0.08)
  shared: float = 0.0
  failing: float = 0.0
  own: float = 0.0
  answers: bool = True
  shift: float = 0.0


WORLDS = {
  'equal': World(),
  'equal, large set': World(answers=False),
  'one run in ten fails': World(failing=0.1),
  'baseline spread wider': World(spread=(0.02, 0.1)),
  'student spread wider': World(spread=(0.1, 0.02)),
  'seeds alike': World(shared=0.7),
  'other examples': World(own=0.1),
  'student better': World(shift=0.06),
}
_NOT_NULL = 'student better'  # Shows power, not false positives.


def _medians(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
  return np.median(a, axis) - np.median(b, axis)


def _means(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
  return np.mean(a, axis) - np.mean(b, axis)


_PERMUTATIONS = {
  'permutation, medians': _medians,
  'permutation, means': _means,
  'permutation, studentised': statistics.studentised,
}
_OF_STARS = 'permutation, studentised'
_BOOTSTRAPS = {
  'bootstrap, medians': (np.median, 'shifted'),
  'bootstrap, medians, percentile': (np.median, 'percentile'),
  'bootstrap, means': (np.mean, 'shifted'),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The sizes of the simulation, and the resamples of each test."""

  examples: int
  trials: int
  permutations: int
  bootstrap_trials: int
  resamples: int


def simulate(
  world: World, seeds: int, examples: int, rng: np.random.Generator
) -> np.ndarray:
  """Simulates the score of each example for a student and two baselines.

  Returns:
    [3, seeds, examples], 0 to 1.
  """
  own = rng.random(examples) < world.own
  q = np.where(
    own, rng.beta(0.6, 0.2, (3, examples)), rng.beta(0.6, 0.2, examples)
  )[:, None]  # [3, 1, N]
  effect = math.sqrt(world.shared) * rng.normal(size=seeds) + math.sqrt(
    1 - world.shared
  ) * rng.normal(size=(3, seeds))
  effect *= np.array([world.spread[i] for i in (0, 1, 1)])[:, None]
  effect[0] += world.shift
  effect = np.clip(effect, -_CUT, _CUT)[..., None]  # [3, S, 1]
  chance = q + 4 * q * (1 - q) * effect
  failed = rng.random((3, seeds, 1)) < world.failing
  chance = np.where(failed, 0.5, chance)
  if not world.answers:
    return chance
  return (rng.random(chance.shape) < chance).astype(np.float64)


def of_seeds(
  world: World, seeds: int, sizes: Sizes, rng: np.random.Generator
) -> dict[str, np.ndarray]:
  """Returns test -> p-values of `sizes.trials` trials, from scores alone."""
  found: dict[str, list[np.ndarray]] = {}

  def note(name: str, p_values: np.ndarray) -> None:
    found.setdefault(name, []).append(p_values)

  for start in range(0, sizes.trials, _BLOCK):
    student, *baselines = np.stack(
      [
        simulate(world, seeds, sizes.examples, rng).mean(axis=-1)
        for _ in range(min(_BLOCK, sizes.trials - start))
      ],
      axis=1,
    )  # [trials, S] each
    note('Mann-Whitney U', statistics.mann_whitney(student, baselines[0]))
    for name, statistic in _PERMUTATIONS.items():
      p_values = [
        statistics.permutation_test(
          student, baseline, rng, statistic, sizes.permutations
        )
        for baseline in baselines[: 2 if name == _OF_STARS else 1]
      ]
      note(name, p_values[0])
      if name == _OF_STARS:
        note(f'{name}, better than two', np.maximum(*p_values))
  return {name: np.concatenate(parts) for name, parts in found.items()}


def of_examples(
  world: World, seeds: int, sizes: Sizes, rng: np.random.Generator
) -> dict[str, np.ndarray]:
  """Returns test -> p-values of `sizes.bootstrap_trials`, over examples too."""
  found: dict[str, list[float]] = {name: [] for name in _BOOTSTRAPS}
  for _ in range(sizes.bootstrap_trials):
    student, baseline, _ = simulate(world, seeds, sizes.examples, rng)
    for name, (statistic, method) in _BOOTSTRAPS.items():
      p_value = bootstrap_test(
        [student],
        [baseline],
        rng,
        statistic=statistic,
        method=method,
        resamples=sizes.resamples,
      )
      found[name].append(p_value)
  return {name: np.array(values) for name, values in found.items()}


def of_both(
  world: World, seeds: int, sizes: Sizes, rng: np.random.Generator
) -> dict[str, np.ndarray]:
  """Returns test -> p-values of `sizes.bootstrap_trials` t-tests.

  It is the test of what serves a task best: over seeds and examples, or with
  one seed over examples alone.
  """
  found: dict[str, list[float]] = {}
  # All trials share their resamples, which saves most of the time.
  shares = np.full(sizes.examples, 1 / sizes.examples)
  counts = rng.multinomial(sizes.examples, shares, 999).astype(np.float64)
  counts = np.concatenate([np.ones((1, sizes.examples)), counts])
  for _ in range(sizes.bootstrap_trials):
    groups = simulate(world, seeds, sizes.examples, rng)[:2]
    drawn = [mean_score(group, counts).T for group in groups]
    difference = bootstrap.difference(*drawn, sizes.examples)
    for alternative in ('greater', 'two-sided'):
      name = f't-test over seeds and examples, {alternative}'
      found.setdefault(name, []).append(difference.p_value(alternative))
  return {name: np.array(values) for name, values in found.items()}


def mean_score(outputs: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Returns mean scores [S, B] over resampled examples."""
  totals = np.asarray(outputs, np.float64) @ np.asarray(counts, np.float64).T
  return totals / counts.sum(axis=1)


def bootstrap_test(
  student: Sequence[np.ndarray],
  baseline: Sequence[np.ndarray],
  rng: np.random.Generator,
  scores: Sequence[bootstrap.Score] | None = None,
  statistic: Callable[..., np.ndarray] = np.median,
  method: Literal['shifted', 'percentile'] = 'shifted',
  resamples: int = bootstrap.RESAMPLES,
) -> float:
  """Returns the p-value of "`student` is higher", by `bootstrap.p_value`.

  Every resample draws the examples of each task anew, the same for both
  groups, and the seeds of each group, the same for all tasks. A seed's score
  is the mean of its tasks' scores.

  Args:
    student: an array [S, N] a task: for the default score what each example
      contributes, such as 1 where a prediction is right, otherwise predictions.
    baseline: an array [R, N] a task, for the same examples.
    rng: draws seeds and examples.
    scores: one a task; None: `mean_score` of all.
    statistic: of the scores of a group, with `axis`.
    method: `shifted` is that of `bootstrap.p_value`; `percentile` is the share
      of resampled differences that are not above zero.
    resamples: how many; the p-value is at least 1 / (resamples + 1).

  Raises:
    ValueError: groups differ in tasks or examples, or tasks in seeds.
  """
  scores = [mean_score] * len(student) if scores is None else scores
  pairs = list(zip(student, baseline, scores, strict=True))
  if not pairs or len({(len(a), len(b)) for a, b, _ in pairs}) > 1:
    raise ValueError('no task, or tasks of different seeds')
  drawn = [
    bootstrap.drawn_scores((a, b), score, rng, resamples)
    for a, b, score in pairs
  ]
  groups = [np.mean([pair[i] for pair in drawn], axis=0) for i in (0, 1)]
  if method == 'shifted':
    return bootstrap.p_value(*groups, rng, statistic)
  _, drawn = bootstrap.differences(*groups, rng, statistic)
  not_above = (drawn <= 1e-12) | np.isnan(drawn)
  return float((1 + np.count_nonzero(not_above)) / (1 + len(not_above)))


def interval_misses(
  seeds: int, trials: int, rng: np.random.Generator
) -> np.ndarray:
  """Returns [trials]: whether an interval of normal scores misses 0."""
  found = [statistics.summarise(rng.normal(size=seeds)) for _ in range(trials)]
  return np.array([not s['low'] <= 0 <= s['high'] for s in found])


def _share(hits: np.ndarray) -> dict[str, float]:
  """Returns a share with its standard error."""
  rate = float(np.mean(hits))
  return {
    'rate': rate,
    'standard_error': math.sqrt(rate * (1 - rate) / len(hits)),
    'trials': len(hits),
  }


def table(rates: dict[str, dict[str, dict[str, dict]]]) -> str:
  """Returns a Markdown table: the range over worlds, by test and seeds."""
  tests = next(iter(rates.values()))
  seeds = sorted({n for of in tests.values() for n in of}, key=int)
  lines = [
    '| test | ' + ' | '.join(f'n = {n}' for n in seeds) + ' |',
    '|---|' + '--:|' * len(seeds),
  ]
  for test in tests:
    cells = []
    for n in seeds:
      found = [100 * w[test][n]['rate'] for w in rates.values() if n in w[test]]
      cells.append(f'{min(found):.1f} to {max(found):.1f}' if found else '')
    lines.append(f'| {test} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--output', default='benchmarks/false_positives.json', type=Path
  )
  parser.add_argument(
    '--seeds', default=[5, 10, 20], type=int, nargs='+', help='of a group'
  )
  parser.add_argument('--level', default=0.05, type=float, help='of the tests')
  parser.add_argument('--trials', default=4000, type=int)
  parser.add_argument(
    '--bootstrap-trials', default=2000, type=int, help='of the bootstrap tests'
  )
  parser.add_argument('--examples', default=400, type=int, help='in the set')
  parser.add_argument('--seed', default=0, type=int, help='of the simulation')
  args = parser.parse_args()
  # One more than these is a multiple of 20: a p-value can be .05 exactly.
  sizes = Sizes(args.examples, args.trials, 999, args.bootstrap_trials, 199)
  start = time.perf_counter()
  rates: dict[str, dict[str, dict[str, dict]]] = {}
  for name, world in WORLDS.items():
    for seeds in args.seeds:
      # By name: a world added later changes no other's numbers.
      key = [args.seed, seeds, *name.encode()]
      rng = np.random.default_rng(key)
      p_values = of_seeds(world, seeds, sizes, rng)
      p_values |= of_examples(world, seeds, sizes, rng)
      for test, values in p_values.items():
        share = _share(values <= args.level)
        rates.setdefault(name, {}).setdefault(test, {})[str(seeds)] = share
    for seeds in (1, 2, 3, *args.seeds):
      rng = np.random.default_rng([args.seed, seeds, *name.encode(), 1])
      for test, values in of_both(world, seeds, sizes, rng).items():
        share = _share(values <= args.level)
        rates[name].setdefault(test, {})[str(seeds)] = share
    print(f'{name}: {time.perf_counter() - start:.0f} s', flush=True)
  rng = np.random.default_rng(args.seed)
  misses = {
    str(seeds): _share(interval_misses(seeds, sizes.bootstrap_trials // 2, rng))
    for seeds in args.seeds
  }
  found = {
    'level': args.level,
    'seed': args.seed,
    'sizes': dataclasses.asdict(sizes),
    'worlds': {k: dataclasses.asdict(w) for k, w in WORLDS.items()},
    'false_positives': {k: v for k, v in rates.items() if k != _NOT_NULL},
    'power': {_NOT_NULL: rates[_NOT_NULL]},
    'interval_misses_median': misses,
    'versions': {'numpy': np.__version__, 'scipy': scipy.__version__},
  }
  args.output.write_text(json.dumps(found, indent=1) + '\n')
  print(f'\nTrials with p <= {args.level:g}, in percent: lowest and highest of')
  print('the worlds in which nothing is better.\n')
  print(table(found['false_positives']))
  print('\nIn which the student is better:\n')
  print(table(found['power']))
  print('\nTrials in which the interval misses the median:\n')
  print(table({'': {'interval of the median': misses}}))


if __name__ == '__main__':
  main()
