"""Cuts questions with long contexts into overlapping windows of tokens."""

from collections.abc import Callable, Iterator, Sequence
import json
from typing import NamedTuple

import numpy as np

from bam_jax import errors
from bam_jax.tasks import kind
from bam_jax.tasks import task as task_lib


class Window(NamedTuple):
  """A window as token ids: `[CLS] question [SEP] part of the context [SEP]`.

  The first four fields are those of `kind.Features`, the others those of
  `answers.Answers`.
  """

  uid: str
  input_ids: np.ndarray
  length_a: int
  label: np.ndarray
  spans: np.ndarray
  context: str
  answers: str


def cut_windows(
  task: task_lib.Task,
  examples: Sequence[task_lib.Example],
  tokenizer: kind.Tokenizer,
  max_length: int,
  on_cut: Callable[[str], None],
) -> Iterator[Window]:
  """Cuts examples into windows; see `kind_bases.PerToken.windows`.

  A question fills at most half of a window; the rest of it is cut off. Windows
  begin `task.stride` tokens after one another; 0: half of the room for context.
  The answer trained on is the first gold one, if a window holds all of it.
  """
  budget = max_length - 3
  longest = budget // 2
  if task.stride > budget - longest:
    raise errors.UserError(
      f'config.custom_tasks.{task.name}.stride={task.stride}: windows of'
      f' config.data.max_length={max_length} hold {budget - longest}'
      ' tokens of context beside a long question, so that windows would skip'
      ' context; lower the stride or raise max_length'
    )
  questions = tokenizer.encode([example.text_a for example in examples])
  # Questions about one context follow one another.
  contexts = list(dict.fromkeys(example.text_b for example in examples))
  encoded = dict(
    zip(contexts, tokenizer.encode_with_spans(contexts), strict=True)
  )
  cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
  for example, question in zip(examples, questions):
    if len(question) > longest:
      on_cut(example.uid)
      question = question[:longest]
    ids, spans = encoded[example.text_b]
    answer = _answer(example, spans)
    no_answer = task.kind.encode_label(task, example.label)
    room = budget - len(question)
    step = task.stride or max(1, room // 2)
    before = len(question) + 2  # Tokens before the context.
    begins = range(0, max(len(ids) - room, 0) + step, step)
    for number, begin in enumerate(begins):
      part = ids[begin : begin + room]
      label = no_answer
      if answer and begin <= answer[0] and answer[1] < begin + room:
        label = np.float32(answer) + np.float32(before - begin)
      places = np.full((before + len(part) + 1, 2), -1, np.int32)
      places[before:-1] = spans[begin : begin + room]
      answers = [text for text, _ in example.label or ()]
      yield Window(
        task_lib.window_uid(example.uid, number),
        np.concatenate([cls, question, sep, part, sep], dtype=np.int32),
        before,
        label,
        places.ravel(),
        '' if number else example.text_b,
        '' if number else json.dumps(answers),
      )


def _answer(
  example: task_lib.Example, spans: np.ndarray
) -> tuple[int, int] | None:
  """Returns the first and last context token of the first gold answer."""
  if not example.label:
    return None
  text, start = example.label[0]
  inside = (spans[:, 1] > start) & (spans[:, 0] < start + len(text))
  places = np.flatnonzero(inside)
  # White space, and characters that the tokenizer drops, have no token.
  return (int(places[0]), int(places[-1])) if len(places) else None
