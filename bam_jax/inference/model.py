"""Predicts users' texts with trained models.

A batch may hold texts of several tasks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import itertools
from typing import Any, NamedTuple

import jax
import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import packing as packing_lib
from bam_jax.data import batches
from bam_jax.data import columns as columns_lib
from bam_jax.data import features as features_lib
from bam_jax.data import unlabelled
from bam_jax.modeling import heads as heads_lib
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import programs as programs_lib

# Number of texts that `Model.predict_texts` encodes and predicts together:
# enough to fill batches, and few enough for the memory of any machine.
_CHUNK = 4096


class Input(NamedTuple):
  """Tokenised texts for one task.

  Attributes:
    task: name of the task.
    rows: one row, or one row per window of a long text.
    truncated: whether some tokens of the texts were cut off.
  """

  task: str
  rows: tuple[kind_lib.Features, ...]
  truncated: bool

  @property
  def num_tokens(self) -> int:
    """Number of tokens in all rows together."""
    return sum(len(row.input_ids) for row in self.rows)


class Result(NamedTuple):
  """Prediction for one `Input`, or the reason why it cannot be predicted.

  Attributes:
    prediction: the prediction; None if there is an error.
    truncated: see `Input`.
    error: error message in one line; empty if there is a prediction.
  """

  prediction: kind_lib.Prediction | None
  truncated: bool = False
  error: str = ''

  def as_json(self) -> dict[str, object]:
    """Returns the prediction's fields and `truncated`, or only `error`."""
    if self.error:
      return {'error': self.error}
    return {**self.prediction.said, 'truncated': self.truncated}


class Model:
  """Predicts with the models of a group of runs.

  Attributes:
    tasks: name -> task, for the tasks that the model predicts.
    sizes: possible numbers of rows per batch, ascending: powers of two, and
      `evaluate.batch_rows`, which is the largest. Each size has its own
      compiled program.
    most_tokens: number of tokens that fit into a batch of the largest size.
  """

  def __init__(
    self,
    programs: programs_lib.Programs,
    trained: Sequence[tuple[Mapping[str, task_lib.Task], Any]],
    tokenizer: features_lib.Tokenizer,
    config: config_lib.Config,
  ):
    """Initializes the model, without compiling a program.

    Args:
      programs: the programs of the plan.
      trained: one pair for each trained model: name -> task, with the fitted
        temperatures and thresholds, and its parameters on the devices.
      tokenizer: the tokenizer that the models were trained with.
      config: the configuration of the plan.
    """
    self.tasks = {
      name: task for tasks, _ in trained for name, task in tasks.items()
    }
    largest = evaluate.batch_rows(programs, config.packing)
    powers = [2**i for i in range(largest.bit_length())]
    sizes = (
      packing_lib.bucket(size, (1,), programs.mesh.size)
      for size in (*powers, largest)
    )
    self.sizes = sorted(set(sizes))
    self.most_tokens = self.sizes[-1] * config.packing.row_length
    self._programs = programs
    self._trained = [
      (tuple(tasks), programs.split_layers(params)) for tasks, params in trained
    ]
    self._tokenizer = tokenizer
    self._config = config

  def choose_task(self, name: str | None, where: str) -> str:
    """Checks a task's name and returns it.

    Args:
      name: the name; None: the model's only task.
      where: the flag or argument that gives the name, for error messages.

    Raises:
      errors.UserError: the model has no such task, or `name` is None and the
        model has several tasks.
    """
    if name is None and len(self.tasks) == 1:
      (name,) = self.tasks
    if name not in self.tasks:
      given = f'{where}={name}: no such task'
      if name is None:
        given = f'{where} is missing'
      raise errors.UserError(f'{given}; give one of {", ".join(self.tasks)}')
    return name

  def predict_texts(
    self, task: str, texts: Iterable[unlabelled.Texts | errors.UserError]
  ) -> Iterator[Result]:
    """Yields predictions for texts of one task in order, in constant memory.

    If an item of `texts` is an error, its result has the message of the error.

    Raises:
      errors.UserError: all items of `texts` are errors. The first error is
        raised, after all results were yielded.
    """
    texts, first, is_any = iter(texts), None, False
    while chunk := list(itertools.islice(texts, _CHUNK)):
      good = [each for each in chunk if not isinstance(each, errors.UserError)]
      results = iter(self.predict(self.encode(task, good)) if good else ())
      for each in chunk:
        if isinstance(each, errors.UserError):
          first = first or each
          yield Result(None, error=str(each))
        else:
          is_any = True
          yield next(results)
    if first and not is_any:
      raise first

  def encode(self, task: str, texts: Sequence[unlabelled.Texts]) -> list[Input]:
    """Tokenises texts of one task; may be called from any thread."""
    examples = [
      task_lib.Example(str(i), row[0], row[1] if len(row) == 2 else None, None)
      for i, row in enumerate(texts)
    ]
    cut = set()
    rows = {example.uid: [] for example in examples}
    for row in features_lib.featurize(
      examples,
      self.tasks[task],
      self._tokenizer,
      self._config.data.max_length,
      on_cut=cut.add,
    ):
      rows[task_lib.example_uid(row.uid)].append(row)
    return [Input(task, tuple(own), uid in cut) for uid, own in rows.items()]

  def predict(self, inputs: Sequence[Input]) -> list[Result]:
    """Returns a prediction for each input, in order; not thread-safe."""
    results: dict[int, Result] = {}
    for names, params in self._trained:
      # Rows are sorted by task, because `Kind.predict` takes all rows of a task
      # at once.
      chosen = sorted(
        (i for i, each in enumerate(inputs) if each.task in names),
        key=lambda i: names.index(inputs[i].task),
      )
      rows = [
        row._replace(uid=task_lib.window_uid(str(i), number))
        for i in chosen
        for number, row in enumerate(inputs[i].rows)
      ]
      if not rows:
        continue
      row_tasks = np.array(
        [inputs[i].task for i in chosen for _ in inputs[i].rows]
      )
      logits = self._logits(params, rows, row_tasks)
      for name in dict.fromkeys(row_tasks.tolist()):
        task, own = self.tasks[name], np.flatnonzero(row_tasks == name)
        of_task = np.concatenate([logits[row] for row in own])
        for prediction in task.kind.predict(
          task,
          of_task[:, : task.num_outputs],
          columns_lib.InMemory([rows[row] for row in own]),
        ):
          number = int(prediction.uid)
          results[number] = Result(prediction, inputs[number].truncated)
    return [results[i] for i in range(len(inputs))]

  def compile(self) -> None:
    """Compiles the program of each batch shape, or loads it from the cache."""
    _, params = self._trained[0]
    ids = np.array([self._tokenizer.cls_id, self._tokenizer.sep_id], np.int32)
    row = [kind_lib.Features('', ids, len(ids), np.nan)]
    for size in self.sizes:
      for *_, logits in self._dispatch(params, row, 0, [size]):
        jax.block_until_ready(logits)

  def _logits(
    self, params: Any, rows: Sequence[kind_lib.Features], row_tasks: np.ndarray
  ) -> dict[int, np.ndarray]:
    """Computes the logits of each row.

    Returns:
      Index in `rows` -> logits: [1, C], or [tokens, K] if the row's task has
      outputs per token. C and K are the numbers of outputs of the widest heads.
    """
    tasks = self._programs.tasks
    heads = np.array([tasks.index[name] for name in row_tasks.tolist()])
    per_token = np.isin(heads, tasks.token_heads)
    result: dict[int, np.ndarray] = {}
    for numbers, starts, logits in evaluate.keep_in_flight(
      self._dispatch(params, rows, heads, self.sizes)
    ):
      used = numbers >= 0
      slots, tokens = jax.device_get(logits.slots), None
      if per_token[numbers[used]].any():
        tokens = jax.device_get(logits.tokens)
      for row, slot in np.argwhere(used).tolist():
        number, start = int(numbers[row, slot]), starts[row, slot]
        if per_token[number]:
          length = len(rows[number].input_ids)
          result[number] = tokens[row, start : start + length]
        else:
          result[number] = slots[row, slot : slot + 1]
    return result

  def _dispatch(
    self,
    params: Any,
    rows: Sequence[kind_lib.Features],
    heads: int | np.ndarray,
    sizes: Sequence[int],
  ) -> Iterator[tuple[np.ndarray, np.ndarray, heads_lib.Outputs]]:
    """Dispatches batches of rows to the devices, without waiting for results.

    Args:
      params: the parameters.
      rows: the rows to predict.
      heads: index of the head for all rows, or one index per row.
      sizes: possible numbers of rows per batch, ascending. All batches have the
        largest size, except the last, which has the smallest possible one.

    Yields:
      For each batch: the index in `rows` of the example in each slot, [B, S],
      or -1 if the slot is empty; the position of the first token of each slot,
      [B, S]; and the logits on the devices.
    """
    for numbers, batch in batches.evaluation_batches(
      columns_lib.InMemory(rows), heads, self._config.packing, sizes
    ):
      yield numbers, batch['cls_index'], self._programs.predict(params, batch)
