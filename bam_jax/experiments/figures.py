"""The report's pictures, drawn as inline SVG.

Drawn here and not by a plotting library, so that a picture follows the page's
light or dark theme, keeps its text as text, and holds no style, script or
address that a strict content security policy would block: colours and sizes
are plain attributes, and the page's style sheet may only replace them.
"""

from collections.abc import Sequence
import html
import itertools
import math
from typing import NamedTuple
import zlib

import numpy as np

from bam_jax import config as config_lib

LABELS = dict(
  zip(
    config_lib.VARIANTS,
    ('Single', 'Multi', 'Single→Single', 'Multi→Multi', 'Single→Multi'),
  )
)

# From Okabe and Ito's colour-blind-safe set, the two light ones darkened until
# they stand 3:1 against white. A student has the hue of its teacher's family.
COLORS = dict(
  zip(
    config_lib.VARIANTS,
    ('#0072b2', '#d55e00', '#3d94cf', '#b97f00', '#008a65'),
  )
)
# Dashes as well: a print in grey still tells the lines apart.
_DASHES = dict(zip(config_lib.VARIANTS, ('', '', '5 2.5', '5 2.5', '')))

# For variants of the user's own, by a checksum of their name.
_OTHER_COLORS = ('#a5517f', '#5f6670', '#7a6a00', '#8b5cc2')
_OTHER_DASHES = ('1.5 2.5', '8 3', '8 2.5 1.5 2.5')

_TURN = 9  # Pixels of each of the lines that coincide.

_WIDTH = 344
_FONT = 'system-ui, -apple-system, "Segoe UI", sans-serif'
_MUTED = 0.68  # Opacity of labels beside the data.


def label(variant: str) -> str:
  """What a reader knows a variant by."""
  return LABELS.get(variant, variant.replace('_', ' '))


def color(variant: str) -> str:
  """The colour of a variant in every picture."""
  other = _OTHER_COLORS[zlib.crc32(variant.encode()) % len(_OTHER_COLORS)]
  return COLORS.get(variant, other)


def _dash(variant: str) -> str:
  number = zlib.crc32(variant.encode()) // len(_OTHER_COLORS)
  return _DASHES.get(variant, _OTHER_DASHES[number % len(_OTHER_DASHES)])


class Scores(NamedTuple):
  """Scores of one variant: a point a seed, and their median."""

  variant: str
  points: Sequence[float]
  median: float | None


class Curve(NamedTuple):
  """One line: x and y, both [P]; y is NaN where there is no line."""

  variant: str
  x: np.ndarray
  y: np.ndarray


class _Scale:
  """Data to pixels, with round ticks."""

  def __init__(self, low: float, high: float, start: float, end: float):
    self._low, self._high = low, high
    self._start, self._end = start, end

  def __call__(self, value: float) -> float:
    share = (value - self._low) / (self._high - self._low)
    return self._start + share * (self._end - self._start)

  def ticks(self, count: int) -> list[float]:
    """At most `count` + 1 round numbers (1, 2 or 5 times 10^n) inside."""
    smallest = (self._high - self._low) / count
    power = 10.0 ** math.floor(math.log10(smallest))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= smallest)
    first, last = math.ceil(self._low / step), math.floor(self._high / step)
    return [round(i * step, 10) for i in range(first, last + 1)]


def scores(title: str, metric: str, rows: Sequence[Scores]) -> str:
  """A panel with one row a variant: seeds as dots, their median as a bar.

  Args:
    title: of the panel, such as the task's name.
    metric: what the scores are, 0-100.
    rows: one a variant, in the order drawn; a median may be None.

  Returns:
    An `<svg>` element.
  """
  left, right, top, height = 98, _WIDTH - 46, 34, 21
  bottom = top + height * len(rows)
  low, high = _range([p for row in rows for p in row.points])
  scale = _Scale(low, high, left + 8, right - 8)
  parts = [_text(0, 14, title, weight=600, size=13)]
  parts.append(
    _text(right + 46, 14, f'{metric}, 0 to 100', anchor='end', opacity=_MUTED)
  )
  for tick in scale.ticks(4):
    parts.append(_line(scale(tick), top - 4, scale(tick), bottom))
    parts.append(
      _text(
        scale(tick), bottom + 14, f'{tick:g}', anchor='middle', opacity=_MUTED
      )
    )
  for row, y in zip(rows, itertools.count(top + height / 2, height)):
    parts.append(_text(0, y + 4, label(row.variant)))
    number = '—' if row.median is None else f'{row.median:.1f}'
    parts.append(_text(right + 46, y + 4, number, anchor='end', tabular=True))
    marks = [
      _tag(
        'circle',
        _tag('title', f'{label(row.variant)}: {point:.2f}'),
        cx=f'{scale(point):.1f}',
        cy=f'{y:.1f}',
        r=4,
        fill='currentColor',
        fill_opacity=0.55 if len(row.points) > 1 else 1,
      )
      for point in row.points
    ]
    if len(row.points) > 1 and row.median is not None:
      marks.append(
        _tag(
          'rect',
          x=f'{scale(row.median) - 1.5:.1f}',
          y=f'{y - 8:.1f}',
          width=3,
          height=16,
          rx=1,
          fill='currentColor',
        )
      )
    parts.append(_in_color(row.variant, *marks))
  told = ', '.join(
    f'{label(row.variant)} '
    + ('incomplete' if row.median is None else f'{row.median:.1f}')
    for row in rows
  )
  return _svg(bottom + 20, f'{title}, {metric}, medians: {told}', parts)


def lines(
  title: str,
  y_label: str,
  curves: Sequence[Curve],
  y_range: tuple[float, float] | None = None,
) -> str:
  """A panel of one line a variant over the share of a run's steps.

  Args:
    title: of the panel.
    y_label: what the lines show, with its unit.
    curves: at least one, all with the same x, from 0 to 100.
    y_range: lowest and highest y; None: from 0 to what the lines need.

  Returns:
    An `<svg>` element.
  """
  left, right, top, bottom = 34, _WIDTH - 10, 42, 176
  highest = max(float(np.nanmax(curve.y)) for curve in curves)
  y_low, y_high = y_range or (0.0, 1.05 * highest or 1.0)
  x_scale = _Scale(0, 100, left, right)
  y_scale = _Scale(y_low, y_high, bottom, top)
  parts = [
    _text(0, 14, title, weight=600, size=13),
    _text(0, 30, y_label, opacity=_MUTED),
    _text(
      (left + right) / 2,
      bottom + 32,
      "share of the run's steps (%)",
      anchor='middle',
      opacity=_MUTED,
    ),
  ]
  for tick in y_scale.ticks(5):
    y = y_scale(tick)
    parts.append(_line(left, y, right, y))
    parts.append(
      _text(left - 6, y + 4, f'{tick:g}', anchor='end', opacity=_MUTED)
    )
  for tick in (0, 25, 50, 75, 100):
    x = x_scale(tick)
    parts.append(_line(x, bottom, x, bottom + 4))
    parts.append(
      _text(x, bottom + 16, str(tick), anchor='middle', opacity=_MUTED)
    )
  for curve, dash, offset in _dashes(curves, (y_high - y_low) / 200):
    points = ' '.join(
      f'{x_scale(x):.1f},{y_scale(y):.1f}' for x, y in _finite(curve)
    )
    line = _tag(
      'polyline',
      _tag('title', label(curve.variant)),
      points=points,
      fill='none',
      stroke='currentColor',
      stroke_width=1.8,
      stroke_linejoin='round',
      **({'stroke_dasharray': dash} if dash else {}),
      **({'stroke_dashoffset': offset} if offset else {}),
    )
    parts.append(_in_color(curve.variant, line))
  ends = [(curve, _finite(curve)) for curve in curves]
  told = '; '.join(
    f'{label(curve.variant)} from {points[0][1]:.2f} to {points[-1][1]:.2f}'
    for curve, points in ends
  )
  alt = f"{title}, {y_label} over the share of the run's steps: {told}"
  return _svg(bottom + 38, alt, parts)


def swatch(variant: str) -> str:
  """A short piece of the variant's line, for a legend beside its name."""
  dash = _dash(variant)
  line = _tag(
    'line',
    x1=0,
    y1=6,
    x2=26,
    y2=6,
    stroke='currentColor',
    stroke_width=3,
    **({'stroke_dasharray': dash} if dash else {}),
  )
  return _tag(
    'svg',
    _in_color(variant, line),
    viewBox='0 0 26 12',
    width=26,
    height=12,
    aria_hidden='true',
  )


def _range(points: Sequence[float]) -> tuple[float, float]:
  """Lowest and highest of an axis: at least 2 points apart, with a margin."""
  if not points:
    return 0.0, 100.0
  low, high = min(points), max(points)
  margin = max(0.06 * (high - low), 1 - (high - low) / 2)
  return low - margin, high + margin


def _finite(curve: Curve) -> list[tuple[float, float]]:
  return [(x, y) for x, y in zip(curve.x, curve.y) if math.isfinite(y)]


def _dashes(
  curves: Sequence[Curve], tolerance: float
) -> list[tuple[Curve, str, int]]:
  """Curves with dash pattern and offset; coinciding ones take turns.

  Without this the last one drawn would hide the others. Curves coincide where
  nowhere more than `tolerance` lies between them.
  """
  groups: list[list[Curve]] = []
  for curve in curves:
    for group in groups:
      both = np.isfinite(group[0].y) & np.isfinite(curve.y)
      if np.allclose(group[0].y[both], curve.y[both], 0, tolerance):
        group.append(curve)
        break
    else:
      groups.append([curve])
  result = []
  for group in groups:
    if len(group) == 1:
      result.append((group[0], _dash(group[0].variant), 0))
      continue
    pattern = f'{_TURN} {_TURN * (len(group) - 1)}'
    result += [(c, pattern, -_TURN * i) for i, c in enumerate(group)]
  return result


def _in_color(variant: str, *children: str) -> str:
  return _tag('g', *children, color=color(variant), class_=variant)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
  return _tag(
    'line',
    x1=f'{x1:.1f}',
    y1=f'{y1:.1f}',
    x2=f'{x2:.1f}',
    y2=f'{y2:.1f}',
    stroke='currentColor',
    stroke_opacity=0.16,
  )


def _text(
  x: float,
  y: float,
  text: str,
  *,
  anchor: str = 'start',
  size: int = 11,
  weight: int = 400,
  opacity: float = 1,
  tabular: bool = False,
) -> str:
  return _tag(
    'text',
    text,
    x=f'{x:.1f}',
    y=f'{y:.1f}',
    text_anchor=anchor,
    font_size=size,
    font_weight=weight,
    fill='currentColor',
    fill_opacity=opacity,
    **({'class_': 'number'} if tabular else {}),
  )


def _svg(height: float, alt: str, parts: Sequence[str]) -> str:
  return _tag(
    'svg',
    *parts,
    viewBox=f'0 0 {_WIDTH} {height:g}',
    role='img',
    aria_label=alt,
    font_family=_FONT,
  )


def _tag(name: str, *children: str, **attributes: object) -> str:
  """An element. Text becomes safe here, in `text` and `title` alone."""
  if name in ('text', 'title'):
    children = tuple(html.escape(child) for child in children)
  written = ''.join(
    f' {_attribute(key)}="{html.escape(str(value))}"'
    for key, value in attributes.items()
  )
  return f'<{name}{written}>{"".join(children)}</{name}>'


def _attribute(key: str) -> str:
  """`stroke_width` -> `stroke-width`, `class_` -> `class`."""
  return key.rstrip('_').replace('_', '-')
