"""Elements of inline SVG, and the scale that places them.

A picture follows the page's light or dark theme, keeps its text as text, and
holds no style, script or address that a strict content security policy would
block: colours and sizes are plain attributes, and the page's style sheet may
only replace them.
"""

from collections.abc import Sequence
import html
import math

WIDTH = 344
_FONT = 'system-ui, -apple-system, "Segoe UI", sans-serif'
MUTED = 0.68  # Opacity of labels beside the data.


class Scale:
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


def line(
  x1: float, y1: float, x2: float, y2: float, opacity: float = 0.16
) -> str:
  """A line, by default a faint one of a grid."""
  return tag(
    'line',
    x1=f'{x1:.1f}',
    y1=f'{y1:.1f}',
    x2=f'{x2:.1f}',
    y2=f'{y2:.1f}',
    stroke='currentColor',
    stroke_opacity=opacity,
  )


def text(
  x: float,
  y: float,
  words: str,
  *,
  anchor: str = 'start',
  size: int = 11,
  weight: int = 400,
  opacity: float = 1,
  tabular: bool = False,
) -> str:
  """Words at a place; `tabular` gives all figures the same width."""
  return tag(
    'text',
    words,
    x=f'{x:.1f}',
    y=f'{y:.1f}',
    text_anchor=anchor,
    font_size=size,
    font_weight=weight,
    fill='currentColor',
    fill_opacity=opacity,
    **({'class_': 'number'} if tabular else {}),
  )


def picture(height: float, alt: str, parts: Sequence[str]) -> str:
  """The whole `<svg>` element; `alt` tells it to who does not see it."""
  return tag(
    'svg',
    *parts,
    viewBox=f'0 0 {WIDTH} {height:g}',
    role='img',
    aria_label=alt,
    font_family=_FONT,
  )


def tag(name: str, *children: str, **attributes: object) -> str:
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
