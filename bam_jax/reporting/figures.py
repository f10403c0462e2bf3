"""Draws the report's plots as SVG and PNG with matplotlib."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import html
import io
import itertools
import math
from pathlib import Path
import re
from typing import NamedTuple
import warnings

import markupsafe
import matplotlib
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bam_jax import escape

INK = '#1b1f24'  # Text and axes; `render` replaces it in the SVG.
SOFT = 0.68  # Opacity of axis labels.
_STYLE = Path(__file__).with_suffix('.mplstyle')
_COLUMNS = 3  # Panels per row.
_WIDTH = 10.8  # Width of a plot in inches.
_CURVE_ROWS = 9  # Height of a panel of curves, in rows of text.


class Look(NamedTuple):
  """Colour and line style of a variant, the same in all plots of a report."""

  color: str
  line: str | tuple[float, tuple[float, ...]] = '-'


# Colours of Okabe and Ito's colour-blind-safe set. The two light colours are
# darkened, so that each colour has a contrast of at least 3:1 both to white and
# to the page's dark background. `single_to_single` and `multi_to_multi` have
# hues similar to those of their teachers. Dashes distinguish the lines if they
# are printed in grey.
_LOOKS = {
  'single': Look('#0072b2'),
  'single_searched': Look('#0072b2', (0, (1, 2))),
  'multi': Look('#d55e00'),
  'multi_searched': Look('#d55e00', (0, (1, 2))),
  'single_to_single': Look('#3d94cf', (0, (4, 2))),
  'multi_to_multi': Look('#b97f00', (0, (4, 2))),
  'single_to_multi': Look('#008a65'),
}
# For custom variants: all colours with one dash pattern, then all colours with
# the next pattern.
_OTHER_LOOKS = [
  Look(color, (0, dashes))
  for dashes in ((6, 2, 1, 2), (6, 2), (1, 2))
  for color in ('#a5517f', '#6f7680', '#857400', '#8b5cc2')
]


class Panel(NamedTuple):
  """One panel of a plot.

  Attributes:
    title: title of the panel, such as a task's name.
    what: the measured quantity.
    rows: name of each row on the y axis; empty if the panel shows curves.
    alt: the panel's content in words, for readers who can't see the panel.
    draw: adds the data to the axes; row i is at y = i.
  """

  title: str
  what: str
  rows: Sequence[str]
  alt: str
  draw: Callable[[Axes], None]


class Plot(NamedTuple):
  """One figure of the report, also saved as `report_NAME.png`.

  `legend` maps the label of each line to its look.
  """

  name: str
  title: str
  caption: str
  panels: Sequence[Panel]
  legend: Mapping[str, Look]


def looks(variants: Iterable[str]) -> dict[str, Look]:
  """Chooses the colour and line style of each variant.

  The looks of custom variants repeat after 12 variants.
  """
  others = itertools.cycle(_OTHER_LOOKS)
  return {name: _LOOKS.get(name) or next(others) for name in variants}


def render(plot: Plot) -> tuple[markupsafe.Markup, bytes]:
  """Renders a plot as an `<svg>` element and as a PNG on white.

  In the SVG, text and axes have the text colour of the page, which may be light
  or dark.
  """
  text, png = _draw(plot)
  head, body = text[text.index('<svg') :].split('>', 1)
  box = re.search(r'viewBox="[\d. ]*"', head)[0]
  alt = html.escape(escape.plain('; '.join(p.alt for p in plot.panels)))
  text = f'<svg {box} role="img" aria-label="{alt}">{body}'
  text = text.replace(INK, 'currentColor')
  return markupsafe.Markup(text), png


def _draw(plot: Plot) -> tuple[str, bytes]:
  """Draws a plot as SVG and PNG; returns the contents of both files.

  Neither file contains a date or the version of matplotlib.
  """
  with matplotlib.rc_context(fname=_STYLE), warnings.catch_warnings():
    # The font lacks some alphabets. The PNG shows boxes for their letters; the
    # page shows the letters.
    warnings.filterwarnings('ignore', message='.*[Gg]lyph')
    figure = _figure(plot)
    svg, png = io.StringIO(), io.BytesIO()
    metadata = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
    figure.savefig(svg, format='svg', transparent=True, metadata=metadata)
    figure.set_layout_engine('none')  # Keeps the computed layout.
    figure.savefig(png, dpi=200, metadata={'Software': None})
  return svg.getvalue(), png.getvalue()


def _figure(plot: Plot) -> Figure:
  """Draws all panels of a plot in a grid, several panels per row."""
  rows = max(len(panel.rows) or _CURVE_ROWS for panel in plot.panels)
  lines = math.ceil(len(plot.panels) / _COLUMNS)
  height = lines * (0.22 * rows + 0.75) + 0.2
  figure = Figure(figsize=(_WIDTH, height), layout='constrained')
  figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
  axes = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
  for ax, panel in itertools.zip_longest(axes, plot.panels):
    if panel is None:
      ax.set_axis_off()
      continue
    ax.set_title(_short(panel.title, 34))
    ax.set_axisbelow(True)
    # By default, the number of ticks depends on the size of the panel.
    ax.xaxis.set_major_locator(ticker.MaxNLocator(4))
    ax.yaxis.set_major_locator(ticker.MaxNLocator(4))
    if panel.rows:
      ax.set_xlabel(panel.what, alpha=SOFT)
      ax.set_yticks(range(len(panel.rows)), map(_short, panel.rows))
      ax.set_ylim(len(panel.rows) - 0.4, -0.6)
      ax.grid(axis='y', visible=False)
    else:
      ax.set_ylabel(panel.what, alpha=SOFT)
    panel.draw(ax)
  if plot.legend:
    handles = [
      Line2D([], [], color=look.color, linestyle=look.line)
      for look in plot.legend.values()
    ]
    labels = [escape.plain(label) for label in plot.legend]
    figure.legend(handles, labels, loc='outside upper left', ncols=_COLUMNS)
  return figure


def _short(name: str, most: int = 24) -> str:
  name = escape.plain(name)
  return name if len(name) <= most else name[: most - 1] + '…'
