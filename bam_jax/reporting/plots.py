"""The report's plots, each by one function of `PLOTS`."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib import ticker
from matplotlib.axes import Axes
import numpy as np

from bam_jax import config as config_lib
from bam_jax.reporting import comparisons
from bam_jax.reporting import curves as curves_lib
from bam_jax.reporting import figures
from bam_jax.reporting import words
from bam_jax.reporting.tables import Report

_TURN = 4  # Length of each dash of lines that coincide, in line widths.


def plots_of(report: Report) -> list[figures.Plot]:
  """Returns all plots that the report has data for."""
  return [plot for function in PLOTS if (plot := function(report)).panels]


def plot_scores(report: Report) -> figures.Plot:
  """Plots the scores of each task: seeds as dots, medians as bars."""
  look_of = figures.looks(report.summary['variants'])

  def panel(title: str, metric: str, column: str) -> figures.Panel:
    # A variant that has a score, even an undefined one, has a row.
    scores = {
      name: list(filter(words.is_number, found))
      for name, seeds in report.summary['per_seed'].items()
      if (found := comparisons.scores_of(seeds, column, report.tasks))
    }
    medians = {
      name: comparisons.score_of(variant, column, report.tasks)
      for name, variant in report.summary['variants'].items()
      if name in scores
    }

    def draw(ax: Axes) -> None:
      ax.set_xlim(*_range([x for found in scores.values() for x in found]))
      for y, (name, found) in enumerate(scores.items()):
        color, many = look_of[name].color, len(found) > 1
        ax.plot(
          found, [y] * len(found), 'o', c=color, alpha=0.55 if many else 1
        )
        if many and words.is_number(medians[name]):
          ax.plot(medians[name], y, '|', c=color, ms=11, mew=2.2)
        _beside(ax, y, words.number(medians[name]))

    told = ', '.join(
      f'{words.label(name)} {words.number(median, absent="incomplete")}'
      for name, median in medians.items()
    )
    alt = f'{title}, {metric}, medians: {told}'
    rows = [words.label(name) for name in scores]
    return figures.Panel(title, f'{metric}, 0 to 100', rows, alt, draw)

  panels = [panel('Average', 'paper', comparisons.AVERAGE)]
  for task in report.tasks.tasks:
    panels.append(panel(task.name, task.paper_metric, task.name))
  several = len(config_lib.seeds_of_shard(report.config)) > 1
  return figures.Plot(
    'scores',
    'Scores by task and variant',
    f'A dot is a seed{", a bar the median over seeds" if several else ""}; the'
    ' number at the right is what the table holds. Each panel has its own'
    ' scale.',
    [found for found in panels if found.rows],
  )


def plot_effects(report: Report) -> figures.Plot:
  """Plots the gain of each task with intervals, one panel per pair."""
  look_of = figures.looks(report.summary['variants'])

  def panel(
    variant: str, baseline: str, rows: Sequence[Mapping]
  ) -> figures.Panel:
    gains = [
      f'{words.number(row["shift"], "+z.1f")} ({_verdict(row)})' for row in rows
    ]

    def draw(ax: Axes) -> None:
      ax.axvline(0, color=figures.INK, alpha=0.6, linewidth=0.8)
      ax.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:+g}'))
      ends = [0.0]
      for y, (row, gain) in enumerate(zip(rows, gains)):
        _beside(ax, y, gain)
        found = [row[key] for key in ('low', 'shift', 'high')]
        found = [value for value in found if words.is_number(value)]
        color = look_of[variant].color
        ax.plot(found, [y] * len(found), c=color, linewidth=2.5, alpha=0.55)
        ax.plot(row['shift'], y, 'o', c=color)
        ends += found
      ax.set_xlim(*_range(ends))

    title = f'{words.label(variant)} against {words.label(baseline)}'
    columns = [row['column'] for row in rows]
    told = ', '.join(map(' '.join, zip(columns, gains)))
    alt = f'{title}, shift, points: {told}'
    return figures.Panel(title, 'shift, points', columns, alt, draw)

  pairs: dict[tuple[str, str], list[Mapping]] = {}
  for table in report.summary['pairs']:
    is_tested = any(row['p_value'] is not None for row in table['rows'])
    if is_tested and table['kind'] in ('multi_task', 'teachers'):
      for row in table['rows']:
        pairs.setdefault((row['variant'], row['baseline']), []).append(row)
  return figures.Plot(
    'effects',
    'What multi-task training and teachers change',
    'A dot is the median difference of all pairs of seeds, a bar its 95%'
    ' interval; p is of the two-sided Mann-Whitney test, after correction. The'
    ' tables are below.',
    [panel(*pair, rows) for pair, rows in pairs.items()],
  )


def _verdict(row: Mapping) -> str:
  """Formats the corrected p-value with its stars."""
  if row['corrected'] is None:
    return 'not tested'
  p_value = words.p_value(row['corrected'])
  sign = '' if p_value.startswith('<') else '='
  return f'p{sign}{p_value}{row["stars"]}'


def plot_shares(report: Report) -> figures.Plot:
  """Plots the share of each task in the examples of multi-task variants."""
  look_of = figures.looks(report.summary['variants'])

  def panel(
    variant: str, shares: Mapping[str, Mapping[str, float]]
  ) -> figures.Panel:
    drawn = [100 * share['drawn'] for share in shares.values()]
    intended = [100 * share['intended'] for share in shares.values()]
    told = [f'{a:.1f}% of {b:.1f}%' for a, b in zip(drawn, intended)]

    def draw(ax: Axes) -> None:
      rows = range(len(shares))
      ax.barh(rows, drawn, 0.5, color=look_of[variant].color, alpha=0.55)
      ax.plot(intended, rows, '|', c=figures.INK, ms=11, mew=1.4)
      ax.set_xlim(0, 1.04 * max(*drawn, *intended))
      for y, text in enumerate(told):
        _beside(ax, y, text)

    title = words.label(variant)
    alt = ', '.join(map(' '.join, zip(shares, told)))
    alt = f'{title}, examples drawn of those intended: {alt}'
    return figures.Panel(title, 'drawn, intended (%)', list(shares), alt, draw)

  return figures.Plot(
    'shares',
    'Shares of the tasks',
    "A bar is the share of a run's examples that were of the task, the median"
    ' over runs; a stroke is the share intended.',
    [panel(*item) for item in report.summary['shares'].items()],
  )


def plot_losses(report: Report) -> figures.Plot:
  """Plots the training loss over all tasks, and of each task."""
  curves = {'All tasks': report.curves.medians('loss')}
  curves |= {
    name: report.curves.medians(f'loss/{name}', name)
    for name in report.tasks.names
  }
  return figures.Plot(
    'losses',
    'Training loss',
    "Median over a variant's runs, against the target that the variant trains"
    " on: gold labels, or their mix with a teacher's predictions. Losses on"
    " different targets don't compare; their course does. Where lines coincide"
    ' their colours take turns.',
    *_curves(report, 'mean loss per example', curves),
  )


# To add a plot, write its function and add it here.
PLOTS: tuple[Callable[[Report], figures.Plot], ...] = (
  plot_scores,
  plot_effects,
  plot_shares,
  plot_losses,
)


def _curves(
  report: Report,
  what: str,
  panels: Mapping[str, Mapping[str, np.ndarray]],
) -> tuple[list[figures.Panel], dict[str, figures.Look]]:
  """Returns panels with one line per variant over its steps, and a legend."""
  look_of = figures.looks(report.summary['variants'])

  def panel(title: str, curves: Mapping[str, np.ndarray]) -> figures.Panel:
    highest = max(float(np.nanmax(values)) for values in curves.values())

    def draw(ax: Axes) -> None:
      ax.set_xlabel("share of the run's steps (%)", alpha=figures.SOFT)
      ax.set_xlim(0, 100)
      ax.set_xticks([0, 25, 50, 75, 100])
      ax.set_ylim(0, 1.05 * highest or 1.0)
      for group in _coinciding(curves, highest / 200):
        for place, name in enumerate(group):
          color, line = look_of[name]
          if len(group) > 1:  # Dashes that take turns, or the last hides all.
            line = (-_TURN * place, (_TURN, _TURN * (len(group) - 1)))
          ax.plot(curves_lib.GRID, curves[name], c=color, linestyle=line)

    told = '; '.join(
      '{} from {:.2f} to {:.2f}'.format(
        words.label(name), *values[np.isfinite(values)][[0, -1]]
      )
      for name, values in curves.items()
    )
    alt = f"{title}, {what} over the share of the run's steps: {told}"
    return figures.Panel(title, what, (), alt, draw)

  steps = report.curves.steps()
  shown = dict.fromkeys(name for found in panels.values() for name in found)
  legend = {
    f'{words.label(name)} ({steps[name]})': look_of[name] for name in shown
  }
  return [panel(*item) for item in panels.items() if item[1]], legend


def _coinciding(
  curves: Mapping[str, np.ndarray], tolerance: float
) -> list[list[str]]:
  """Groups variants whose curves nowhere differ by more than `tolerance`."""
  groups: list[list[str]] = []
  for name, values in curves.items():
    for group in groups:
      first = curves[group[0]]
      both = np.isfinite(first) & np.isfinite(values)
      if np.allclose(first[both], values[both], 0, tolerance):
        group.append(name)
        break
    else:
      groups.append([name])
  return groups


def _beside(ax: Axes, y: float, text: str) -> None:
  """Writes text at the right of a row."""
  ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va='center')


def _range(points: Sequence[float]) -> tuple[float, float]:
  """Limits of an axis: at least 2 points apart, with a margin."""
  if not points:
    return 0.0, 100.0
  low, high = min(points), max(points)
  margin = max(0.06 * (high - low), 1 - (high - low) / 2)
  return low - margin, high + margin
