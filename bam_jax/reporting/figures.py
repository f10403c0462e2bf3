"""The report's pictures of scores and of training, as inline SVG.

Drawn here and not by a plotting library: `svg` says why.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import itertools
import math
from typing import NamedTuple

import numpy as np

from bam_jax import config as config_lib
from bam_jax.reporting import svg

LABELS = dict(
  zip(
    config_lib.VARIANTS,
    ('Single', 'Multi', 'Single→Single', 'Multi→Multi', 'Single→Multi'),
  )
)


class Look(NamedTuple):
  """How a variant looks in every picture of a report.

  Attributes:
    name: of the style sheet's class, which has another colour in the dark.
    color: in the light.
    dash: of lines; empty: none.
  """

  name: str
  color: str
  dash: str


# From Okabe and Ito's colour-blind-safe set, the two light ones darkened until
# they stand 3:1 against white. A student has the hue of its teacher's family.
# Dashes as well: a print in grey still tells the lines apart.
_LOOKS = {
  name: Look(name, *style)
  for name, style in zip(
    config_lib.VARIANTS,
    (
      ('#0072b2', ''),
      ('#d55e00', ''),
      ('#3d94cf', '5 2.5'),
      ('#b97f00', '5 2.5'),
      ('#008a65', ''),
    ),
  )
}

# For variants of the user's own: all colours with a pattern, then the next.
_OTHER_COLORS = ('#a5517f', '#5f6670', '#7a6a00', '#8b5cc2')
_OTHER_DASHES = ('8 2.5 1.5 2.5', '8 3', '1.5 2.5')

UNDEFINED = 'undefined'

_TURN = 9  # Pixels of each of the lines that coincide.


def label(variant: str) -> str:
  """What a reader knows a variant by."""
  return LABELS.get(variant, variant.replace('_', ' '))


def looks(variants: Sequence[str]) -> dict[str, Look]:
  """A look a variant; the user's own differ, up to twelve of them."""
  found, own = {}, 0
  for variant in variants:
    if variant in _LOOKS:
      found[variant] = _LOOKS[variant]
      continue
    pattern, hue = divmod(own, len(_OTHER_COLORS))
    dash = _OTHER_DASHES[pattern % len(_OTHER_DASHES)]
    found[variant] = Look(f'own-{hue}', _OTHER_COLORS[hue], dash)
    own += 1
  return found


class Scores(NamedTuple):
  """Scores of one variant: a point a seed that has one, and their median.

  The median is None where seeds are missing, nan where a score is undefined.
  """

  variant: str
  points: Sequence[float]
  median: float | None


class Curve(NamedTuple):
  """One line: x and y, both [P]; y is NaN where there is no line."""

  variant: str
  x: np.ndarray
  y: np.ndarray


def scores(
  title: str,
  metric: str,
  rows: Sequence[Scores],
  looks: Mapping[str, Look],
) -> str:
  """A panel with one row a variant: seeds as dots, their median as a bar.

  Args:
    title: of the panel, such as the task's name.
    metric: what the scores are, 0-100.
    rows: one a variant, in the order drawn; a median may be None.
    looks: of the variants.

  Returns:
    An `<svg>` element.
  """
  left = left_of([label(row.variant) for row in rows])
  right, top, height = svg.WIDTH - 46, 34, 21
  bottom = top + height * len(rows)
  low, high = range_of([p for row in rows for p in row.points])
  scale = svg.Scale(low, high, left + 8, right - 8)
  parts = [svg.text(0, 14, title, weight=600, size=13)]
  parts.append(
    svg.text(
      right + 46, 14, f'{metric}, 0 to 100', anchor='end', opacity=svg.MUTED
    )
  )
  for tick in scale.ticks(4):
    parts.append(svg.line(scale(tick), top - 4, scale(tick), bottom))
    parts.append(
      svg.text(
        scale(tick),
        bottom + 14,
        f'{tick:g}',
        anchor='middle',
        opacity=svg.MUTED,
      )
    )
  for row, y in zip(rows, itertools.count(top + height / 2, height)):
    parts.append(svg.text(0, y + 4, label(row.variant)))
    number = _number(row.median, '—')
    parts.append(
      svg.text(right + 46, y + 4, number, anchor='end', tabular=True)
    )
    marks = [
      svg.tag(
        'circle',
        svg.tag('title', f'{label(row.variant)}: {point:.2f}'),
        cx=f'{scale(point):.1f}',
        cy=f'{y:.1f}',
        r=4,
        fill='currentColor',
        fill_opacity=0.55 if len(row.points) > 1 else 1,
      )
      for point in row.points
    ]
    has_median = row.median is not None and math.isfinite(row.median)
    if len(row.points) > 1 and has_median:
      marks.append(
        svg.tag(
          'rect',
          x=f'{scale(row.median) - 1.5:.1f}',
          y=f'{y - 8:.1f}',
          width=3,
          height=16,
          rx=1,
          fill='currentColor',
        )
      )
    parts.append(in_color(looks[row.variant], *marks))
  told = ', '.join(
    f'{label(row.variant)} ' + _number(row.median, 'incomplete') for row in rows
  )
  return svg.picture(bottom + 20, f'{title}, {metric}, medians: {told}', parts)


def _number(median: float | None, absent: str) -> str:
  if median is None:
    return absent
  return UNDEFINED if math.isnan(median) else f'{median:.1f}'


def lines(
  title: str,
  y_label: str,
  curves: Sequence[Curve],
  looks: Mapping[str, Look],
  y_range: tuple[float, float] | None = None,
) -> str:
  """A panel of one line a variant over the share of a run's steps.

  Args:
    title: of the panel.
    y_label: what the lines show, with its unit.
    curves: at least one, all with the same x, from 0 to 100.
    looks: of their variants.
    y_range: lowest and highest y; None: from 0 to what the lines need.

  Returns:
    An `<svg>` element.
  """
  left, right, top = 34, svg.WIDTH - 10, 42
  # Many lines need room between them.
  bottom = 176 if len(curves) <= len(_LOOKS) else 246
  highest = max(float(np.nanmax(curve.y)) for curve in curves)
  y_low, y_high = y_range or (0.0, 1.05 * highest or 1.0)
  x_scale = svg.Scale(0, 100, left, right)
  y_scale = svg.Scale(y_low, y_high, bottom, top)
  parts = [
    svg.text(0, 14, title, weight=600, size=13),
    svg.text(0, 30, y_label, opacity=svg.MUTED),
    svg.text(
      (left + right) / 2,
      bottom + 32,
      "share of the run's steps (%)",
      anchor='middle',
      opacity=svg.MUTED,
    ),
  ]
  for tick in y_scale.ticks(5):
    y = y_scale(tick)
    parts.append(svg.line(left, y, right, y))
    parts.append(
      svg.text(left - 6, y + 4, f'{tick:g}', anchor='end', opacity=svg.MUTED)
    )
  for tick in (0, 25, 50, 75, 100):
    x = x_scale(tick)
    parts.append(svg.line(x, bottom, x, bottom + 4))
    parts.append(
      svg.text(x, bottom + 16, str(tick), anchor='middle', opacity=svg.MUTED)
    )
  for curve, dash, offset in _dashes(curves, looks, (y_high - y_low) / 200):
    points = ' '.join(
      f'{x_scale(x):.1f},{y_scale(y):.1f}' for x, y in _finite(curve)
    )
    line = svg.tag(
      'polyline',
      svg.tag('title', label(curve.variant)),
      points=points,
      fill='none',
      stroke='currentColor',
      stroke_width=1.8,
      stroke_linejoin='round',
      **({'stroke_dasharray': dash} if dash else {}),
      **({'stroke_dashoffset': offset} if offset else {}),
    )
    parts.append(in_color(looks[curve.variant], line))
  ends = [(curve, _finite(curve)) for curve in curves]
  told = '; '.join(
    f'{label(curve.variant)} from {points[0][1]:.2f} to {points[-1][1]:.2f}'
    for curve, points in ends
  )
  alt = f"{title}, {y_label} over the share of the run's steps: {told}"
  return svg.picture(bottom + 38, alt, parts)


def swatch(look: Look) -> str:
  """A short piece of a variant's line, for a legend beside its name."""
  dash = look.dash
  line = svg.tag(
    'line',
    x1=0,
    y1=6,
    x2=26,
    y2=6,
    stroke='currentColor',
    stroke_width=3,
    **({'stroke_dasharray': dash} if dash else {}),
  )
  return svg.tag(
    'svg',
    in_color(look, line),
    viewBox='0 0 26 12',
    width=26,
    height=12,
    aria_hidden='true',
  )


def left_of(names: Sequence[str]) -> int:
  """Where data begin beside names of this length: by a letter's mean width."""
  return max(98, math.ceil(6.2 * max(map(len, names), default=0)) + 6)


def range_of(points: Sequence[float]) -> tuple[float, float]:
  """Lowest and highest of an axis: at least 2 points apart, with a margin."""
  if not points:
    return 0.0, 100.0
  low, high = min(points), max(points)
  margin = max(0.06 * (high - low), 1 - (high - low) / 2)
  return low - margin, high + margin


def _finite(curve: Curve) -> list[tuple[float, float]]:
  return [(x, y) for x, y in zip(curve.x, curve.y) if math.isfinite(y)]


def _dashes(
  curves: Sequence[Curve], looks: Mapping[str, Look], tolerance: float
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
      result.append((group[0], looks[group[0].variant].dash, 0))
      continue
    pattern = f'{_TURN} {_TURN * (len(group) - 1)}'
    result += [(c, pattern, -_TURN * i) for i, c in enumerate(group)]
  return result


def in_color(look: Look, *children: str) -> str:
  """Elements in the colour of a variant."""
  return svg.tag('g', *children, color=look.color, class_=look.name)
