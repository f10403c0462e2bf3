"""Predicts a user's own file: one output line for each input line."""

from collections.abc import Iterator
import contextlib
import itertools
import json
import logging
import os
from pathlib import Path
import sys
from typing import TextIO

from bam_jax import errors
from bam_jax import escape
from bam_jax import files
from bam_jax.data import unlabelled
from bam_jax.inference import model as model_lib

# Rows read, predicted and written together: enough for full batches, and few
# enough for any memory.
_CHUNK = 4096


def predict(
  model: model_lib.Model, task: str | None, source: str, output: str | None
) -> None:
  """Predicts a file in constant memory, in the order of its lines.

  JSON lines are those of `Result.as_json`; TSV has the prediction and the
  labels' probabilities, below a header if the input has one.

  Args:
    model: predicts the task.
    task: its name; None: the only one there is.
    source: path of a `.tsv` or `.jsonl` file, or `-`.
    output: path, of either format, written whole or not at all; None: standard
      output, in the format of the input.

  Raises:
    errors.UserError: no such task, the input can't be read, naming file and
      line, or the output can't be written.
  """
  task = _known(model, task)
  declared = model.tasks[task]
  if output is not None and unlabelled.format_of(output) is None:
    raise errors.UserError(
      f'--output={output}: is neither .tsv nor .jsonl; name it by its format'
    )
  count = cut = 0
  with (
    unlabelled.open_rows(source, declared) as rows,
    _destination(output) as file,
  ):
    as_json = (unlabelled.format_of(output or '') or rows.format) == 'jsonl'
    if rows.has_header and not as_json:
      names = declared.kind.prediction_columns(declared)
      file.write(escape.tsv(('prediction', *names)) + '\n')
    while texts := list(itertools.islice(rows.texts, _CHUNK)):
      for result in model.predict(model.encode(task, texts)):
        file.write(_line(result, as_json))
        cut += result.truncated
      count += len(texts)
  logging.info(
    '%s: %d rows predicted, %d of them cut', output or 'stdout', count, cut
  )


def _known(model: model_lib.Model, task: str | None) -> str:
  if task is None and len(model.tasks) == 1:
    return next(iter(model.tasks))
  if task in model.tasks:
    return task
  asked = '--task is missing; give one'
  if task is not None:
    asked = f'--task={task}: is none'
  raise errors.UserError(f'{asked} of {", ".join(model.tasks)}')


def _line(result: model_lib.Result, as_json: bool) -> str:
  if as_json:
    return json.dumps(result.as_json(), ensure_ascii=False) + '\n'
  return escape.tsv(result.as_fields()) + '\n'


@contextlib.contextmanager
def _destination(output: str | None) -> Iterator[TextIO]:
  """Opens standard output, or a file that appears when it is complete."""
  if output is None:
    sys.stdout.reconfigure(encoding='utf-8')
    try:
      yield sys.stdout
      sys.stdout.flush()
    except BrokenPipeError:
      # The reader has closed it, and Python would flush once more at its end.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return
  try:
    with files.new_file(Path(output), 'x', encoding='utf-8') as file:
      yield file
  except OSError as e:
    raise errors.UserError(
      f'--output={output}: cannot be written: {e.strerror}'
    ) from e
