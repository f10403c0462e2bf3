"""Defines the report of data checks: findings, summaries, exit codes."""

from collections.abc import Iterable
import dataclasses
from typing import Literal

Severity = Literal['error', 'warning', 'note']

# Severity -> exit code, the worst severity first. Exit code 2 means a mistake
# in the command.
EXIT_CODES: dict[Severity, int] = {'error': 3, 'warning': 1, 'note': 0}
# Most places that are listed per finding.
MAX_PLACES = 20
# Most characters of a sentence. The limit is needed because a sentence may
# quote a table cell of any length.
_LONGEST = 300


@dataclasses.dataclass(frozen=True)
class Finding:
  """A problem, or a fact worth knowing, that a check found in a split.

  Attributes:
    severity: `error` if a run would stop or learn nonsense; `warning` if scores
      may be misleading; `note` if nothing has to be fixed.
    check: short name of the check.
    what: the problem, in words.
    remedy: how to fix the problem; may be empty for a note.
    count: number of rows, or of other things that `what` describes.
    places: at most `MAX_PLACES` places, as `FILE:LINE`, or as uids if the
      source has no lines. For a pair of rows, this is `PLACE = PLACE` or
      `PLACE ≈ PLACE`.
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
  """What is lost if long rows are truncated, or if they are read in windows.

  Attributes:
    rows_cut: share of the rows that are not read completely.
    tokens_cut: share of the tokens that are not read.
    inputs: mean number of model inputs per row.
  """

  rows_cut: float
  tokens_cut: float
  inputs: float = 1.0


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Statistics about the lengths of a split's rows.

  Attributes:
    characters: median, 90th percentile, 99th percentile and maximum of the
      number of characters per row, over both texts.
    tokens: the same four numbers for the number of tokens per row, including
      special tokens; empty without a tokenizer.
    tokenised: number of rows that were tokenised.
    rows_cut: share of the tokenised rows that lose tokens at `data.max_length`;
      0 for kinds with outputs per token, because these always read long rows in
      windows.
    tokens_cut: share of the tokens of all tokenised rows that is cut off.
    unknown: share of [UNK] among the tokens.
    unknown_words: the words that most often became [UNK].
    choices: token limit -> the loss if rows are truncated to this limit, and
      the loss if long rows are read in windows of this length. Empty if no row
      is longer than `data.max_length`, or for kinds with outputs per token.
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

  `shares` maps each label, or each bin of scores, to its share of the rows. It
  is empty if any row has no label or several labels.
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
