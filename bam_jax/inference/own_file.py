"""Predicts a user's own file: one output line for each row."""

from collections.abc import Iterator
import contextlib
import json
import logging
from pathlib import Path
import sys
from typing import TextIO

from bam_jax import errors
from bam_jax import escape
from bam_jax import files
from bam_jax.data import unlabelled
from bam_jax.inference import model as model_lib


def predict(
  model: model_lib.Model, task: str | None, source: str, output: str | None
) -> None:
  """Predicts a file in constant memory, in the order of its rows.

  JSON lines hold `Result.as_json`. TSV lines hold the prediction and the
  labels' probabilities, below a header if the input has one.

  Args:
    model: the model.
    task: name of the task; None: the model's only task.
    source: path of a file, see `unlabelled.open_rows`; `-`: standard input.
    output: path of a `.tsv` or `.jsonl` file, written whole or not at all;
      None: standard output, TSV where the input is a table, else JSON lines.

  Raises:
    errors.UserError: the task is unknown, the input can't be read, or the
      output can't be written.
  """
  declared = model.tasks[task := model.choose_task(task, '--task')]
  suffix = Path(output or '').suffix
  if output is not None and suffix not in ('.tsv', '.jsonl'):
    raise errors.UserError(
      f'--output={output}: ends neither in .tsv nor in .jsonl; rename it'
    )
  count = cut = 0
  with (
    unlabelled.open_rows(source, declared) as rows,
    _destination(output) as file,
  ):
    as_json = (suffix or f'.{rows.format}') == '.jsonl'
    if rows.has_header and not as_json:
      names = declared.kind.prediction_columns(declared)
      file.write(escape.tsv(('prediction', *names)) + '\n')
    for result in model.predict_texts(task, rows.texts):
      if as_json:
        line = json.dumps(result.as_json(), ensure_ascii=False)
      else:
        line = escape.tsv(result.prediction.as_fields())
      file.write(line + '\n')
      cut += result.truncated
      count += 1
  logging.info(
    '%s: %d rows predicted, %d of them cut', output or 'stdout', count, cut
  )


@contextlib.contextmanager
def _destination(output: str | None) -> Iterator[TextIO]:
  """Opens standard output, or a file that appears when it is complete."""
  if output is None:
    sys.stdout.reconfigure(encoding='utf-8')
    yield sys.stdout
    sys.stdout.flush()
    return
  try:
    with files.new_file(Path(output), 'x', encoding='utf-8') as file:
      yield file
  except OSError as e:
    raise errors.UserError(
      f'--output={output}: cannot be written: {e.strerror}; choose another'
    ) from e
