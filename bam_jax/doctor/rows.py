"""Defines `Rows`: the raw rows of a split, with what is known about them."""

import bisect
from collections.abc import Sequence
import dataclasses

import numpy as np

from bam_jax.data import features
from bam_jax.doctor import findings
from bam_jax.tasks import task as task_lib

# Advice to give if a pretrained encoder's vocabulary lacks many words.
CASED = (
  'use a vocabulary of the language and case of these texts; for a cased one'
  ' write "do_lower_case": false into the tokenizer_config.json of'
  ' config.model.init'
)


@dataclasses.dataclass
class Rows:
  """The N readable rows of a split, with what is known about them.

  `load.load` reads the rows; `examine.examine` and the checks set the other
  attributes.

  Attributes:
    tokenizer: tokenizer that counts tokens; None if tokens are not counted.
    max_length: maximum number of tokens of a row.
    vocabulary: advice to print if the tokenizer's vocabulary lacks many words.
    folder: data folder, with `/` at the end. Findings remove it from paths.
    file: path of the raw file that was read, or of the last one if the split
      has several files.
    files: for each file of the split, the index of its first row and its path.
    places: [N] line numbers in the file, from 1; or row indices, as in the
      uids, if the source has no lines.
    has_lines: whether `places` are line numbers.
    texts: one or two columns of texts; emptied after the split is checked.
    label: [N] float64 class indices or scores; nan if a row has no label or
      several labels.
    labels: the set of all labels of the rows, as parsed by `Kind.parse`.
    data_lines: number of rows in the files, unusable rows included.
    is_utf_8: whether all lines are valid UTF-8.
    lengths: length statistics, from `lengths.check`.
    train_shares: [C] label shares of the training split, if its rows have
      labels.
    numbers: [N, 1 or 2] int64, an integer per text; see `repeats.number_texts`.
  """

  task: task_lib.Task
  split: str
  tokenizer: features.Tokenizer | None = None
  max_length: int = 0
  vocabulary: str = CASED
  folder: str = ''
  file: str = ''
  files: list[tuple[int, str]] = dataclasses.field(default_factory=list)
  places: np.ndarray | None = None
  has_lines: bool = True
  texts: Sequence[Sequence[str]] = ()
  label: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
  labels: frozenset[task_lib.Label] = frozenset()
  data_lines: int = 0
  is_utf_8: bool = True
  lengths: findings.Lengths = findings.Lengths()
  train_shares: np.ndarray | None = None
  numbers: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.label)

  @property
  def name(self) -> str:
    return f'{self.task.name}/{self.split}'

  @property
  def is_train(self) -> bool:
    return self.split in (self.task.train_split, task_lib.UNLABELLED)

  @property
  def is_pair(self) -> bool:
    return self.numbers.shape[1] == 2

  def place_names(self, numbers: Sequence[int]) -> list[str]:
    """Returns the places of the given rows, at most `findings.MAX_PLACES`.

    A place is `FILE:LINE`, or the uid if the source has no lines. If there are
    more rows, the places of the first ones are returned.
    """
    files = self.files or [(0, self.file)]
    first_rows = [first for first, _ in files]
    found = []
    for number in numbers[: findings.MAX_PLACES]:
      before = f'{self.name}/'
      if self.has_lines:
        before = f'{files[bisect.bisect_right(first_rows, number) - 1][1]}:'
        before = before.removeprefix(self.folder)
      found.append(f'{before}{self.places[number]}')
    return found

  def find(
    self,
    severity: findings.Severity,
    check: str,
    what: str,
    remedy: str = '',
    count: int = 1,
    places: Sequence[str] | None = None,
  ) -> findings.Finding:
    """Creates a finding about this split; `places` defaults to `file`."""
    places = (self.file,) if places is None else places[: findings.MAX_PLACES]
    return findings.Finding(
      severity,
      self.task.name,
      self.split,
      check,
      what,
      remedy,
      int(count),
      tuple(place.removeprefix(self.folder) for place in places),
    )
