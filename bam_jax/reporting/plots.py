"""The report's plots; each function in `PLOTS` makes one plot."""

from collections.abc import Callable, Mapping, Sequence
import types

from matplotlib import ticker
from matplotlib.axes import Axes
import numpy as np

from bam_jax import config as config_lib
from bam_jax.reporting import comparisons
from bam_jax.reporting import curves as curves_lib
from bam_jax.reporting import figures
from bam_jax.reporting import words
from bam_jax.reporting.tables import Report


def plots_of(report: Report) -> list[figures.Plot]:
  """Returns all plots that the report has data for."""
  return [plot for function in PLOTS if (plot := function(report)).panels]


def plot_scores(report: Report) -> figures.Plot:
  """Plots the scores of each task: seeds as dots, medians as bars."""
  variants, tasks = report.summary['variants'], report.tasks
  scores = comparisons.scores_by_seed(report.summary['per_seed'], tasks)
  look_of = figures.looks(variants)

  def panel(title: str, metric: str, column: str) -> figures.Panel:
    # A variant that has a score, even an undefined one, has a row.
    defined = {
      name: list(filter(words.is_number, by_column[column]))
      for name, by_column in scores.items()
      if column in by_column
    }
    medians = {
      name: comparisons.score_of(variants[name], column, tasks)
      for name in defined
    }

    def draw(ax: Axes) -> None:
      _set_score_axis(ax, [x for found in defined.values() for x in found])
      for y, (name, found) in enumerate(defined.items()):
        color, many = look_of[name].color, len(found) > 1
        ax.plot(
          found, [y] * len(found), 'o', c=color, alpha=0.55 if many else 1
        )
        if many and words.is_number(medians[name]):
          ax.plot(medians[name], y, '|', c=color, ms=11, mew=2.2)

    texts = {
      words.label(name): words.number(median, absent='incomplete')
      for name, median in medians.items()
    }
    return _panel_of_rows(
      title, f'{metric}, 0 to 100', f'{metric}, medians', texts, draw
    )

  panels = [panel('Average', words.averages(tasks)[0], comparisons.AVERAGE)]
  panels += [panel(t.name, t.paper_metric, t.name) for t in tasks.tasks]
  several = len(config_lib.seeds_of_shard(report.config)) > 1
  median = ', a bar the median over seeds' if several else ''
  panels = [found for found in panels if found.rows]
  return _make_plot('scores', panels, median=median)


def plot_effects(report: Report) -> figures.Plot:
  """Plots gains with intervals: one panel per variant pair, one row per task.

  A gain is the shift of a variant against its baseline.
  """
  look_of = figures.looks(report.summary['variants'])

  def panel(
    variant: str, baseline: str, rows: Sequence[Mapping]
  ) -> figures.Panel:
    def draw(ax: Axes) -> None:
      ax.axvline(0, color=figures.INK, alpha=0.6, linewidth=0.8)
      ax.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:+g}'))
      color, ends = look_of[variant].color, [0.0]
      for y, row in enumerate(rows):
        found = [row[key] for key in ('low', 'shift', 'high')]
        found = [value for value in found if words.is_number(value)]
        ax.plot(found, [y] * len(found), c=color, linewidth=2.5, alpha=0.55)
        ax.plot(row['shift'], y, 'o', c=color)
        ends += found
      ax.set_xlim(*_range(ends))

    texts = {row['column']: _effect(row) for row in rows}
    title = f'{words.label(variant)} against {words.label(baseline)}'
    return _panel_of_rows(title, 'shift, points', 'shift, points', texts, draw)

  pairs: dict[tuple[str, str], list[Mapping]] = {}
  for table in report.summary['pairs']:
    is_tested = any(row['p_value'] is not None for row in table['rows'])
    if is_tested and table['kind'] in ('multi_task', 'teachers'):
      for row in table['rows']:
        pairs.setdefault((row['variant'], row['baseline']), []).append(row)
  panels = [panel(*pair, rows) for pair, rows in pairs.items()]
  return _make_plot('effects', panels)


def _effect(row: Mapping) -> str:
  """Formats a shift with its corrected p-value and stars."""
  test = 'not tested'
  if row['corrected'] is not None:
    p_value = words.p_sentence(row['corrected']).replace(' ', '')
    test = p_value + row['stars']
  return f'{words.number(row["shift"], "+z.1f")} ({test})'


def plot_shares(report: Report) -> figures.Plot:
  """Plots how multi-task runs divide their examples among tasks.

  Each task has a drawn share and an intended share.
  """
  look_of = figures.looks(report.summary['variants'])

  def panel(
    variant: str, shares: Mapping[str, Mapping[str, float]]
  ) -> figures.Panel:
    drawn = [100 * share['drawn'] for share in shares.values()]
    intended = [100 * share['intended'] for share in shares.values()]

    def draw(ax: Axes) -> None:
      rows = range(len(shares))
      ax.barh(rows, drawn, 0.5, color=look_of[variant].color, alpha=0.55)
      ax.plot(intended, rows, '|', c=figures.INK, ms=11, mew=1.4)
      ax.set_xlim(0, 1.04 * max(*drawn, *intended))

    texts = {
      task: f'{a:.1f}% (intended {b:.1f}%)'
      for task, a, b in zip(shares, drawn, intended)
    }
    return _panel_of_rows(
      words.label(variant),
      'drawn, intended (%)',
      'share of the examples',
      texts,
      draw,
    )

  panels = [panel(*item) for item in report.summary['shares'].items()]
  return _make_plot('shares', panels)


def plot_losses(report: Report) -> figures.Plot:
  """Plots the curves of the training loss, over all tasks and per task."""
  look_of = figures.looks(report.summary['variants'])
  quantity = 'mean loss per example'

  def panel(title: str, curves: Mapping[str, np.ndarray]) -> figures.Panel:
    def draw(ax: Axes) -> None:
      highest = max(float(np.nanmax(values)) for values in curves.values())
      ax.set_xlabel("share of the run's steps (%)", alpha=figures.SOFT)
      ax.set_xlim(0, 100)
      ax.set_xticks([0, 25, 50, 75, 100])
      ax.set_ylim(0, 1.05 * highest or 1.0)
      for name, values in curves.items():
        color, line = look_of[name]
        ax.plot(curves_lib.GRID, values, c=color, linestyle=line)

    told = '; '.join(
      '{} from {:.2f} to {:.2f}'.format(
        words.label(name), *values[np.isfinite(values)][[0, -1]]
      )
      for name, values in curves.items()
    )
    alt = f"{title}, {quantity} over the share of the run's steps: {told}"
    return figures.Panel(title, quantity, (), alt, draw)

  panels = {'All tasks': report.curves.medians('loss')}
  panels |= {
    name: report.curves.medians(f'loss/{name}', name)
    for name in report.tasks.names
  }
  steps = report.curves.steps()
  shown = dict.fromkeys(name for curves in panels.values() for name in curves)
  legend = {f'{words.label(n)} ({steps[n]})': look_of[n] for n in shown}
  return _make_plot(
    'losses', [panel(*p) for p in panels.items() if p[1]], legend
  )


# To add a plot, write its function and add it here;
# its title and note are in texts.toml.
PLOTS: tuple[Callable[[Report], figures.Plot], ...] = (
  plot_scores,
  plot_effects,
  plot_shares,
  plot_losses,
)


def _make_plot(
  name: str,
  panels: Sequence[figures.Panel],
  legend: Mapping[str, figures.Look] = types.MappingProxyType({}),
  **values: str,
) -> figures.Plot:
  """Returns a plot with its title and caption from texts.toml."""
  title = words.text(f'{name}.title')
  caption = words.text(f'{name}.note', **values)
  return figures.Plot(name, title, caption, panels, legend)


def _panel_of_rows(
  title: str,
  axis: str,
  content: str,
  texts: Mapping[str, str],
  draw: Callable[[Axes], None],
) -> figures.Panel:
  """Returns a panel with one row per key of `texts`, and the text beside it."""

  def draw_with_texts(ax: Axes) -> None:
    draw(ax)
    for y, text in enumerate(texts.values()):
      ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va='center')

  told = ', '.join(map(' '.join, texts.items()))
  alt = f'{title}, {content}: {told}'
  return figures.Panel(title, axis, list(texts), alt, draw_with_texts)


def _set_score_axis(ax: Axes, scores: Sequence[float]) -> None:
  """Sets axis limits with a margin; keeps only ticks at possible scores."""
  low, high = _range(scores)
  ax.set_xlim(low, high)
  least = max(low, min([0.0, *scores]))  # A correlation may be below 0.
  ticks = [x for x in ax.get_xticks() if least <= x <= min(high, 100)]
  ax.set_xticks(ticks)


def _range(points: Sequence[float]) -> tuple[float, float]:
  """Returns axis limits with a margin, at least 2 points apart."""
  if not points:
    return 0.0, 100.0
  low, high = min(points), max(points)
  margin = max(0.06 * (high - low), 1 - (high - low) / 2)
  return low - margin, high + margin
