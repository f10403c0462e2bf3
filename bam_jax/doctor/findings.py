"""What the doctor finds, how bad it is, and where."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
from typing import Literal

from bam_jax import errors

Severity = Literal['error', 'warning', 'note']

SEVERITIES: tuple[Severity, ...] = ('error', 'warning', 'note')
# Status of the command by its worst finding; 2 is a mistake in the command.
_EXIT_CODES = {'error': 3, 'warning': 1, 'note': 0}
# Characters of one sentence: it may quote a cell of any length.
_LONGEST = 300
# Kept of a finding; its count tells how many there are.
MAX_PLACES = 20


@dataclasses.dataclass(frozen=True)
class Finding:
  """One thing that is wrong, or worth knowing, in one split.

  Attributes:
    severity: `error`: a run would stop or learn nonsense; `warning`: scores may
      not be what they seem; `note`: nothing to mend, but to know.
    task: name of the task.
    split: of the task.
    check: short name of the check.
    what: what was found, in words.
    remedy: how to mend it; empty for a note that asks for nothing.
    count: how many rows, or whatever `what` counts.
    places: the first `MAX_PLACES` of them, as `FILE:LINE`, or as uid where the
      source has no lines; two that belong together with = or ≈ between them.
  """

  severity: Severity
  task: str
  split: str
  check: str
  what: str
  remedy: str = ''
  count: int = 1
  places: tuple[str, ...] = ()

  def __post_init__(self):
    """Cuts what would fill a screen."""
    for name in ('what', 'remedy'):
      text = getattr(self, name)
      if len(text) > _LONGEST:
        object.__setattr__(self, name, f'{text[: _LONGEST - 2]} …')


def exit_code(findings: Iterable[Finding]) -> int:
  """0 for nothing worse than notes, 1 with warnings, 3 with errors."""
  return max((_EXIT_CODES[found.severity] for found in findings), default=0)


def of_errors(
  found: Sequence[errors.UserError],
  severity: Severity,
  task: str,
  split: str,
  check: str,
  folder: str = '',
) -> Iterator[Finding]:
  """One finding of all that was raised of one kind; none if nothing was.

  Args:
    found: messages of the form `PLACE: WHAT; HOW TO MEND IT`.
    severity: of the finding.
    task: name of the task.
    split: of the task.
    check: short name of the check.
    folder: left out at the beginning of places.
  """
  if not found:
    return
  parts = [str(error).partition(': ') for error in found]
  what, _, remedy = parts[0][2].partition('; ')
  if len(found) > 1:
    what = f'first: {what}'
  yield Finding(
    severity,
    task,
    split,
    check,
    what,
    remedy,
    len(found),
    tuple(place.removeprefix(folder) for place, *_ in parts[:MAX_PLACES]),
  )
