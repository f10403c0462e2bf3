"""The report's pictures that have a row a task, as inline SVG."""

from collections.abc import Sequence
import itertools
import math
from typing import NamedTuple

from bam_jax.reporting import figures
from bam_jax.reporting import svg

_HEIGHT = 21  # Of a row, in pixels.


class Effect(NamedTuple):
  """How much a task gains.

  Attributes:
    task: its name.
    shift: the gain; nan where it is undefined.
    interval: lowest and highest of it, or None.
    verdict: what is said beside it, such as its p-value.
  """

  task: str
  shift: float
  interval: tuple[float, float] | None
  verdict: str


class Share(NamedTuple):
  """Shares of the examples of a run, from 0 to 1."""

  task: str
  intended: float
  drawn: float


def effects(
  title: str,
  what: str,
  look: figures.Look,
  rows: Sequence[Effect],
) -> str:
  """A panel of gains and losses around zero: dots with intervals.

  Args:
    title: of the panel.
    what: what a gain is of, with its unit.
    look: of the variant that gains.
    rows: at least one.

  Returns:
    An `<svg>` element.
  """
  left, right, top = figures.left_of([row.task for row in rows]), 246, 34
  ends = [0.0]
  for row in rows:
    if not math.isnan(row.shift):
      ends += [row.shift, *(row.interval or ())]
  low, high = figures.range_of(ends)
  scale = svg.Scale(low, high, left + 8, right - 8)
  parts = [
    svg.text(0, 14, title, weight=600, size=13),
    *_axis(scale, top, top + _HEIGHT * len(rows), '+g'),
    svg.text(svg.WIDTH, 14, what, anchor='end', opacity=svg.MUTED),
  ]
  bottom = top + _HEIGHT * len(rows)
  parts.append(svg.line(scale(0), top - 4, scale(0), bottom, 0.6))
  for row, y in zip(rows, itertools.count(top + _HEIGHT / 2, _HEIGHT)):
    parts.append(svg.text(0, y + 4, row.task))
    number = _gain(row).replace('-', '\N{MINUS SIGN}')
    parts.append(
      svg.text(right + 32, y + 4, number, anchor='end', tabular=True)
    )
    parts.append(
      svg.text(svg.WIDTH, y + 4, row.verdict, anchor='end', opacity=svg.MUTED)
    )
    if math.isnan(row.shift):
      continue
    marks = []
    if row.interval:
      start, end = map(scale, row.interval)
      marks.append(
        svg.tag(
          'rect',
          x=f'{start:.1f}',
          y=f'{y - 1.5:.1f}',
          width=f'{max(end - start, 1):.1f}',
          height=3,
          rx=1.5,
          fill='currentColor',
          fill_opacity=0.55,
        )
      )
    marks.append(
      svg.tag(
        'circle',
        cx=f'{scale(row.shift):.1f}',
        cy=f'{y:.1f}',
        r=4.5,
        fill='currentColor',
      )
    )
    parts.append(figures.in_color(look, *marks))
  told = ', '.join(f'{row.task} {_gain(row)} ({row.verdict})' for row in rows)
  return svg.picture(bottom + 20, f'{title}, {what}: {told}', parts)


def _gain(row: Effect) -> str:
  return figures.UNDEFINED if math.isnan(row.shift) else f'{row.shift:+z.1f}'


def shares(variant: str, look: figures.Look, rows: Sequence[Share]) -> str:
  """A panel of what was drawn of each task, as bars, and what was intended.

  Args:
    variant: whose runs drew.
    look: its own.
    rows: at least one.

  Returns:
    An `<svg>` element.
  """
  left, right, top = figures.left_of([row.task for row in rows]), 246, 34
  bottom = top + _HEIGHT * len(rows)
  highest = 100 * max(max(row.intended, row.drawn) for row in rows)
  scale = svg.Scale(0, 1.04 * highest, left, right)
  title, what = figures.label(variant), 'drawn, intended (%)'
  parts = [
    svg.text(0, 14, title, weight=600, size=13),
    svg.text(svg.WIDTH, 14, what, anchor='end', opacity=svg.MUTED),
    *_axis(scale, top, bottom, 'g'),
  ]
  for row, y in zip(rows, itertools.count(top + _HEIGHT / 2, _HEIGHT)):
    drawn, intended = 100 * row.drawn, 100 * row.intended
    parts.append(svg.text(0, y + 4, row.task))
    for x, share in ((right + 42, drawn), (svg.WIDTH, intended)):
      parts.append(
        svg.text(x, y + 4, f'{share:.2f}', anchor='end', tabular=True)
      )
    bar = svg.tag(
      'rect',
      x=f'{scale(0):.1f}',
      y=f'{y - 5:.1f}',
      width=f'{scale(drawn) - scale(0):.1f}',
      height=10,
      fill='currentColor',
      fill_opacity=0.55,
    )
    # In the ink of the text, so that it is seen on its bar.
    aim = svg.tag(
      'rect',
      x=f'{scale(intended) - 1:.1f}',
      y=f'{y - 8:.1f}',
      width=2,
      height=16,
      fill='currentColor',
    )
    parts += [figures.in_color(look, bar), aim]
  told = ', '.join(
    f'{row.task} {row.drawn:.1%} of {row.intended:.1%}' for row in rows
  )
  alt = f'{title}, examples drawn of those intended: {told}'
  return svg.picture(bottom + 20, alt, parts)


def _axis(scale: svg.Scale, top: float, bottom: float, form: str) -> list[str]:
  """Vertical lines with their numbers below."""
  parts = []
  for tick in scale.ticks(4):
    x, number = scale(tick), format(tick, form) if tick else '0'
    parts.append(svg.line(x, top - 4, x, bottom))
    parts.append(
      svg.text(
        x,
        bottom + 14,
        number.replace('-', '\N{MINUS SIGN}'),
        anchor='middle',
        opacity=svg.MUTED,
      )
    )
  return parts
