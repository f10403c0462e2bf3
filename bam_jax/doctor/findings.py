"""The doctor's report: findings, summaries of splits, exit codes."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
from typing import Literal

from bam_jax import errors
from bam_jax.tasks import task as task_lib

Severity = Literal['error', 'warning', 'note']

SEVERITIES: tuple[Severity, ...] = ('error', 'warning', 'note')
# Exit code of the command by its worst finding; 2 is a mistake in the command.
_EXIT_CODES = {'error': 3, 'warning': 1, 'note': 0}
# Characters of one sentence, which may quote a cell of any length.
_LONGEST = 300
# Places listed per finding, whatever its count.
MAX_PLACES = 20


@dataclasses.dataclass(frozen=True)
class Finding:
  """A fault, or a fact worth knowing, of one split.

  Attributes:
    severity: `error`: a run would stop or learn nonsense; `warning`: scores may
      be misleading; `note`: nothing has to be mended.
    task: name of the task.
    split: name of the split.
    check: short name of the check.
    what: what was found, in words.
    remedy: how to mend it; empty for a note that asks for nothing.
    count: number of rows, or of whatever `what` counts.
    places: the first `MAX_PLACES` places, as `FILE:LINE`, or as uid if the
      source has no lines; two rows of a pair have = or ≈ between them.
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
    """Cuts sentences that would fill a screen."""
    for name in ('what', 'remedy'):
      text = getattr(self, name)
      if len(text) > _LONGEST:
        object.__setattr__(self, name, f'{text[: _LONGEST - 2]} …')


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Lengths of a split's rows.

  Attributes:
    characters: median, 90th and 99th percentile and maximum, both texts.
    tokens: the same, special tokens included; empty without a tokenizer.
    tokenised: number of rows that were tokenised.
    rows_cut: share of these that are longer than `data.max_length`; 0 for
      tasks whose long rows are cut into windows.
    tokens_cut: share of their tokens that are cut off.
    unknown: share of [UNK] among their tokens.
    unknown_words: the words that most often became [UNK].
  """

  characters: tuple[int, ...]
  tokens: tuple[int, ...] = ()
  tokenised: int = 0
  rows_cut: float = 0.0
  tokens_cut: float = 0.0
  unknown: float = 0.0
  unknown_words: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Summary:
  """Size, labels and lengths of a split.

  Attributes:
    task: name of the task.
    split: name of the split.
    rows: number of usable rows.
    shares: label, or tenth of the scale, -> share of the rows; empty without
      labels.
    lengths: in characters and tokens.
  """

  task: str
  split: str
  rows: int
  shares: dict[str, float]
  lengths: Lengths


@dataclasses.dataclass(frozen=True)
class Report:
  """All findings, errors first, and the summary of every split."""

  findings: tuple[Finding, ...]
  splits: tuple[Summary, ...]


def exit_code(findings: Iterable[Finding]) -> int:
  """0 for nothing worse than notes, 1 with warnings, 3 with errors."""
  return max((_EXIT_CODES[found.severity] for found in findings), default=0)


def find(
  task: task_lib.Task,
  split: str,
  severity: Severity,
  check: str,
  what: str,
  remedy: str = '',
  count: int = 1,
  places: Sequence[str] | None = None,
) -> Finding:
  """Makes a finding about a split; `places` defaults to the split's file."""
  if places is None:
    places = (task.tables[split].file,)
  first = tuple(places[:MAX_PLACES])
  return Finding(severity, task.name, split, check, what, remedy, count, first)


def from_errors(
  task: task_lib.Task,
  split: str,
  severity: Severity,
  check: str,
  raised: Sequence[errors.UserError],
  folder: str = '',
) -> Iterator[Finding]:
  """Makes one finding of all errors of a check; none without errors.

  Args:
    task: the task.
    split: name of the split.
    severity: of the finding.
    check: short name of the check.
    raised: errors with messages of the form `PLACE: WHAT; HOW TO MEND IT`.
    folder: prefix to remove from the places.
  """
  if not raised:
    return
  parts = [str(error).partition(': ') for error in raised]
  what, _, remedy = parts[0][2].partition('; ')
  if len(raised) > 1:
    what = f'first: {what}'
  places = [place.removeprefix(folder) for place, *_ in parts]
  yield find(task, split, severity, check, what, remedy, len(raised), places)
