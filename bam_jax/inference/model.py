"""Trained models that predict texts as they come, of any tasks at once."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from bam_jax import config as config_lib
from bam_jax.core import packing as packing_lib
from bam_jax.data import batches
from bam_jax.data import features as features_lib
from bam_jax.data import prepare
from bam_jax.data import unlabelled
from bam_jax.modeling import heads
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import programs as programs_lib

# A predicted batch stays on the device until this many more are dispatched.
_IN_FLIGHT = 4


class Input(NamedTuple):
  """Texts of a task as token ids.

  Attributes:
    task: its name.
    rows: one, or the windows of a long text.
    truncated: whether some tokens of the texts are in none of them.
  """

  task: str
  rows: tuple[kind_lib.Features, ...]
  truncated: bool

  @property
  def num_tokens(self) -> int:
    return sum(len(row.input_ids) for row in self.rows)


class Result(NamedTuple):
  """What is predicted for one input.

  Attributes:
    prediction: as the task's kind makes it.
    truncated: as of the input.
  """

  prediction: kind_lib.Prediction
  truncated: bool

  def as_json(self) -> dict[str, object]:
    """What the kind says, and `truncated`."""
    return {**self.prediction.said, 'truncated': self.truncated}

  def as_fields(self) -> list[str]:
    """Prediction and probabilities, as `predict.write_tsv` has them."""
    shares = [f'{p:.4f}' for p in self.prediction.probabilities]
    return [self.prediction.text, *shares]


class _Rows(NamedTuple):
  """Rows of features of any tasks, and the number of the head of each."""

  features: unlabelled.Held
  heads: np.ndarray


class Model:
  """The models of a group of runs: one of all tasks, or one a task.

  Attributes:
    tasks: by name, those that it predicts.
    sizes: rows of the batches: powers of two up to `packing.eval_rows`. Each is
      one program.
    most_tokens: that a batch of the largest size takes.
  """

  def __init__(
    self,
    programs: programs_lib.Programs,
    trained: Sequence[tuple[Sequence[str], Any]],
    tokenizer: features_lib.Tokenizer,
    config: config_lib.Config,
  ):
    """Compiles nothing yet.

    Args:
      programs: the compiled steps.
      trained: names of tasks, and the parameters on the devices that predict
        them.
      tokenizer: that they were trained with.
      config: the whole configuration.
    """
    self.tasks: Mapping[str, task_lib.Task] = {
      name: programs.tasks[name] for names, _ in trained for name in names
    }
    multiple = programs.mesh.size
    most = config.packing.eval_rows
    rows = [*(2**i for i in range(most.bit_length()) if 2**i < most), most]
    self.sizes = sorted(
      {packing_lib.bucket(size, (1,), multiple) for size in rows}
    )
    self.most_tokens = self.sizes[-1] * config.packing.row_length
    self._programs = programs
    self._trained = trained
    self._tokenizer = tokenizer
    self._config = config

  def encode(self, task: str, texts: Sequence[unlabelled.Texts]) -> list[Input]:
    """Token ids of texts of one task; from any thread.

    Raises:
      errors.UserError: as `prepare.featurize`.
    """
    examples = [
      task_lib.Example(str(i), row[0], row[1] if len(row) == 2 else None, None)
      for i, row in enumerate(texts)
    ]
    cut: set[str] = set()
    rows: dict[str, list[kind_lib.Features]] = {
      each.uid: [] for each in examples
    }
    for row in prepare.featurize(
      examples,
      self.tasks[task],
      self._tokenizer,
      self._config.data.max_length,
      on_cut=cut.add,
    ):
      rows[task_lib.example_uid(row.uid)].append(row)
    return [Input(task, tuple(own), uid in cut) for uid, own in rows.items()]

  def predict(self, inputs: Sequence[Input]) -> list[Result]:
    """What is said of each input, in their order; from one thread at a time."""
    found: dict[int, Result] = {}
    tasks = self._programs.tasks
    for names, params in self._trained:
      # Each task's rows follow one another, as its kind reads them.
      chosen = [
        i
        for name in names
        for i, item in enumerate(inputs)
        if item.task == name
      ]
      if not chosen:
        continue
      rows = [
        row._replace(uid=task_lib.window_uid(str(i), number))
        for i in chosen
        for number, row in enumerate(inputs[i].rows)
      ]
      task_ids = np.repeat(
        [tasks.index[inputs[i].task] for i in chosen],
        [len(inputs[i].rows) for i in chosen],
      )
      slots, tokens = self._logits(
        params, _Rows(unlabelled.Held(rows), task_ids)
      )
      for head in np.unique(task_ids):
        task, own = tasks.tasks[head], np.flatnonzero(task_ids == head)
        columns = unlabelled.Held(rows[own[0] : own[-1] + 1])
        logits = slots[own]
        if task.kind.per_token:
          logits = np.concatenate(tokens[own[0] : own[-1] + 1])
        for prediction in task.kind.predict(
          task,
          logits[:, : task.num_outputs],
          columns,
          self._config.model.regression_head,
        ):
          number = int(prediction.uid)
          found[number] = Result(prediction, inputs[number].truncated)
    return [found[i] for i in range(len(inputs))]

  def compile(self) -> None:
    """Compiles, or loads, the program of each size."""
    _, params = self._trained[0]
    ids = np.array([self._tokenizer.cls_id, self._tokenizer.sep_id], np.int32)
    one = unlabelled.Held([kind_lib.Features('', ids, len(ids), np.nan)])
    for size in self.sizes:
      for *_, logits in self._dispatch(
        params, _Rows(one, np.zeros(1, np.int32)), np.arange(1), size
      ):
        jax.block_until_ready(logits)

  def _logits(
    self, params: Any, rows: _Rows
  ) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """In batches of the largest size and one of what is left.

    Returns:
      [N, C] of the rows; and of each row whose task's outputs are of tokens,
      [its tokens, K].
    """
    packing, largest = self._config.packing, self.sizes[-1]
    tasks = self._programs.tasks
    lengths = np.diff(rows.features.ragged('input_ids')[1])
    if packing.enabled:
      packed = packing_lib.pack(lengths, packing.row_length, packing.slots)
    else:
      packed = packing_lib.one_a_row(len(lengths))
    # Examples of the first rows fill as many rows without the others.
    whole = packed.num_rows // largest * largest
    rest = packing_lib.bucket(packed.num_rows - whole, self.sizes, 1)
    slots = np.empty((len(lengths), tasks.num_outputs), np.float32)
    tokens: list[np.ndarray | None] = [None] * len(lengths)
    of_tokens = np.isin(rows.heads, tasks.token_heads)
    pending: list[tuple[np.ndarray, np.ndarray, heads.Logits]] = []

    def collect(limit: int) -> None:
      while len(pending) > limit:
        places, starts, logits = pending.pop(0)
        real = places >= 0
        slots[places[real]] = jax.device_get(logits.slots)[real]
        real &= of_tokens[places]
        row = places[real]
        if len(row):
          values = evaluate.token_logits(
            logits.tokens, real, starts[real], lengths[row]
          )
          ends = np.cumsum(lengths[row])[:-1]
          for number, own in zip(row, np.split(values, ends), strict=True):
            tokens[number] = own

    for only, size in (
      (np.flatnonzero(packed.row < whole), largest),
      (np.flatnonzero(packed.row >= whole), rest),
    ):
      for batch in self._dispatch(params, rows, only, size):
        pending.append(batch)
        collect(_IN_FLIGHT)
    collect(0)
    return slots, tokens

  def _dispatch(
    self, params: Any, rows: _Rows, only: np.ndarray, size: int
  ) -> Iterator[tuple[np.ndarray, np.ndarray, heads.Logits]]:
    """Predicts some of the rows in batches of so many rows.

    Yields:
      Of each batch [B, S] the row in each slot, -1 where it is empty, its first
      token, and the logits on the devices.
    """
    if len(only) == 0:
      return
    for places, batch in batches.evaluation_batches(
      rows.features,
      rows.heads,
      self._programs.tasks.num_outputs,
      self._config.packing,
      size,
      only,
    ):
      # The places are among `only`.
      yield (
        np.where(places < 0, -1, only[places]),
        batch['cls_index'],
        self._programs.predict(params, batch),
      )
