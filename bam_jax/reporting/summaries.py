"""What the scores of one variant are like over its seeds."""

from collections.abc import Sequence
import dataclasses

import numpy as np
import scipy.stats

from bam_jax.reporting import statistics


@dataclasses.dataclass(frozen=True)
class Summary:
  """Scores of one variant over its seeds.

  Attributes:
    seeds: how many scores there are.
    median, mean: of the scores; nan if one of them is undefined.
    deviation: standard deviation, ddof 1; None of one seed, or with an
      undefined score.
    low, high: confidence interval of the median; None likewise.
  """

  seeds: int
  median: float
  mean: float
  deviation: float | None = None
  low: float | None = None
  high: float | None = None


def summarise(
  scores: Sequence[float], seed: int = 0, confidence: float = 0.95
) -> Summary:
  """Median, mean, standard deviation, and an interval of the median.

  The interval is the percentile bootstrap's. BCa would correct it by the
  jackknife, which fails for a median (Efron 1982, "The Jackknife, the Bootstrap
  and Other Resampling Plans"): leaving out one of n scores gives two or three
  different medians only. `scores` is [n], n > 0; `seed` is of the resampling.

  Example:
    >>> found = summarise([60.0, 62.0, 70.0])
    >>> found.median, found.mean, round(found.deviation, 3)
    (62.0, 64.0, 5.292)
    >>> found.low, found.high
    (60.0, 70.0)
  """
  values = statistics.checked(scores)
  center = len(values), float(np.median(values)), float(np.mean(values))
  if len(values) == 1:
    return Summary(*center)
  interval = scipy.stats.bootstrap(
    (values,),
    np.median,
    confidence_level=confidence,
    method='percentile',
    rng=np.random.default_rng(seed),
  ).confidence_interval
  spread = np.std(values, ddof=1), interval.low, interval.high
  return Summary(*center, *map(float, spread))
