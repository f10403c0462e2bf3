"""What the axes of plots show."""

from matplotlib.figure import Figure
import pytest

from bam_jax.reporting import plots


@pytest.mark.parametrize(
  ('scores', 'least'),
  [
    ([93.75, 100.0], 93),
    ([100.0], 99),
    ([0.0, 1.5], 0),
    ([-12.5, 40.0], -20),
    ([], 0),
  ],
)
def test_ticks_of_scores_are_scores(scores, least):
  ax = Figure().subplots()
  plots._set_score_axis(ax, scores)
  low, high = ax.get_xlim()
  assert all(low < score < high for score in scores)
  ticks = ax.get_xticks()
  assert len(ticks) >= 2 and least <= min(ticks) and max(ticks) <= 100
  assert low <= min(ticks) and max(ticks) <= high
  # The margin beyond what a score can be is there, without a tick.
  assert high > 100 or not scores or max(scores) < 100
