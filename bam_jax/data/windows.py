"""From words and long texts to token ids: windows of what is too long.

A window is a row of its own. The first one of an example has its uid, later
ones that uid with a number (`task.window_uid`); they follow one another.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import itertools

import numpy as np

from bam_jax.data import features
from bam_jax.tasks import tagging
from bam_jax.tasks import task as task_lib

# Examples handed to the tokenizer at once.
_BATCH = 1024


def of_words(
  examples: Iterable[task_lib.Example],
  task: task_lib.Task,
  tokenizer: features.Tokenizer,
  max_length: int,
  on_cut: features.OnCut = lambda uid: None,
) -> Iterator[features.Features]:
  """Tagged words: `[CLS] pieces [SEP]`, a label a token.

  Each word is in one window, so that it is trained on and predicted once. A
  word of no piece that the tokenizer knows is `[UNK]`; of one that fills more
  than a window its first pieces are kept.

  Args:
    examples: read once, as a stream; words have single blanks between them.
    task: of all the examples.
    tokenizer: makes the ids.
    max_length: tokens a window has at most, specials included; at least 3.
    on_cut: called before an example with a cut word is returned.
  """
  stream, room = iter(examples), max_length - 2
  while batch := list(itertools.islice(stream, _BATCH)):
    words = [example.text_a.split(' ') for example in batch]
    ids = iter(tokenizer.encode(list(itertools.chain(*words))))
    for example, own in zip(batch, words):
      pieces = [_some(next(ids), tokenizer) for _ in own]
      if max(map(len, pieces)) > room:
        on_cut(example.uid)
        pieces = [piece[:room] for piece in pieces]
      tags = np.broadcast_to(task.kind.target(task, example.label), len(own))
      for number, (first, last) in enumerate(_windows(pieces, room)):
        label = [np.float32([tagging.NO_WORD])]
        for tag, piece in zip(tags[first:last], pieces[first:last]):
          label.append(np.full(len(piece), tagging.NO_WORD, np.float32))
          label[-1][0] = tag
        label.append(label[0])
        yield features.Features(
          task_lib.window_uid(example.uid, number),
          np.concatenate(
            [[tokenizer.cls_id], *pieces[first:last], [tokenizer.sep_id]],
            dtype=np.int32,
          ),
          sum(map(len, pieces[first:last])) + 2,
          np.concatenate(label),
        )


def _some(ids: np.ndarray, tokenizer: features.Tokenizer) -> np.ndarray:
  """The pieces of a word; one at least, which its tag is of."""
  return ids if len(ids) else np.array([tokenizer.unk_id], np.int32)


def _windows(pieces: list[np.ndarray], room: int) -> Iterator[tuple[int, int]]:
  """First word and end of each window."""
  first = used = 0
  for place, piece in enumerate(pieces):
    if used + len(piece) > room:
      yield first, place
      first, used = place, 0
    used += len(piece)
  yield first, len(pieces)
