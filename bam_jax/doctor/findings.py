"""Defines the report of data checks: findings, summaries, exit codes."""

from collections.abc import Iterable
import dataclasses
from typing import Literal

Severity = Literal['error', 'warning', 'note']

# Severities, worst first -> exit code; 2 is a mistake in the command itself.
EXIT_CODES: dict[Severity, int] = {'error': 3, 'warning': 1, 'note': 0}
# Places listed per finding, whatever its count.
MAX_PLACES = 20
# Characters of one sentence, which may quote a cell of any length.
_LONGEST = 300


@dataclasses.dataclass(frozen=True)
class Finding:
  """A problem, or a fact worth knowing, that a check found in a split.

  Attributes:
    severity: `error`: a run would stop or learn nonsense; `warning`: scores may
      be misleading; `note`: nothing has to be fixed.
    check: short name of the check.
    what: the problem, in words.
    remedy: how to fix it; empty for a note that asks for nothing.
    count: number of rows, or of whatever `what` counts.
    places: at most `MAX_PLACES`, as `FILE:LINE`, or as uid if the source has no
      lines; a pair of rows has = or ≈ in the middle.
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
    """Shortens very long sentences."""
    for name in ('what', 'remedy'):
      text = getattr(self, name)
      if len(text) > _LONGEST:
        object.__setattr__(self, name, f'{text[: _LONGEST - 2]} …')


@dataclasses.dataclass(frozen=True)
class Loss:
  """Shares of rows and tokens that a way to read long rows cuts off.

  Attributes:
    rows_cut: share of the rows that are not read to their ends.
    tokens_cut: share of the tokens that are not read.
    inputs: mean number of inputs of the model for a row.
  """

  rows_cut: float
  tokens_cut: float
  inputs: float = 1.0


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Statistics about the lengths of a split's rows.

  Attributes:
    characters: median, 90th and 99th percentile and maximum, both texts.
    tokens: the same, special tokens included; empty without a tokenizer.
    tokenised: number of rows that were tokenised.
    rows_cut: share of these that are longer than `data.max_length`; 0 for
      tasks whose long rows are cut into windows.
    tokens_cut: share of their tokens that are cut off.
    unknown: share of [UNK] among their tokens.
    unknown_words: the words that most often became [UNK].
    choices: limit of tokens -> what is lost if rows are cut there, and if they
      are read in windows of that length. Empty where no row is longer than
      `data.max_length`, or long rows of the task are always read in windows.
  """

  characters: tuple[int, ...] = ()
  tokens: tuple[int, ...] = ()
  tokenised: int = 0
  rows_cut: float = 0.0
  tokens_cut: float = 0.0
  unknown: float = 0.0
  unknown_words: tuple[str, ...] = ()
  choices: dict[int, tuple[Loss, Loss]] = dataclasses.field(
    default_factory=dict
  )


@dataclasses.dataclass(frozen=True)
class Summary:
  """Summary of a split: number of rows, label shares and lengths.

  `shares` maps each label, or bin of scores, to its share of the rows; it is
  empty if rows lack a label.
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
  """Returns 3 if there are errors, 1 if there are warnings, else 0."""
  return max((EXIT_CODES[found.severity] for found in findings), default=0)
