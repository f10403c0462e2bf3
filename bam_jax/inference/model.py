"""Trained models that predict texts as they come, of any tasks at once."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from bam_jax import config as config_lib
from bam_jax.data import batches
from bam_jax.data import features as features_lib
from bam_jax.data import packing as packing_lib
from bam_jax.data import unlabelled
from bam_jax.inference import results
from bam_jax.tasks import task as task_lib
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import programs as programs_lib

_UNCUT = 1 << 30  # tokens: more than any text that is read has


class Input(NamedTuple):
  """Texts of a task as token ids.

  Attributes:
    task: its name.
    features: cut to `config.data.max_length`.
    truncated: whether that took any token.
  """

  task: str
  features: features_lib.Features
  truncated: bool


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

    Raises:
      errors.UserError: a task of a kind that can't be predicted here.
    """
    self.tasks: Mapping[str, task_lib.Task] = {
      name: programs.tasks[name] for names, _ in trained for name in names
    }
    for task in self.tasks.values():
      results.check(task)
    multiple = mesh_lib.rows_multiple(programs.mesh)
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
    """Token ids of texts of one task; from any thread."""
    declared = self.tasks[task]
    examples = [
      task_lib.Example(
        str(i), row[0], row[1] if declared.is_pair else None, None
      )
      for i, row in enumerate(texts)
    ]

    def featurize(chosen, max_length):
      return features_lib.featurize(
        chosen, declared, self._tokenizer, max_length, swap=False
      )

    max_length = self._config.data.max_length
    inputs = [Input(task, f, False) for f in featurize(examples, _UNCUT)]
    long = [
      i for i, x in enumerate(inputs) if len(x.features.input_ids) > max_length
    ]
    cut = featurize([examples[i] for i in long], max_length)
    for i, shorter in zip(long, cut, strict=True):
      inputs[i] = Input(task, shorter, True)
    return inputs

  def predict(self, inputs: Sequence[Input]) -> list[results.Result]:
    """What is said of each input, in their order; from one thread at a time."""
    said: dict[int, results.Result] = {}
    for names, params in self._trained:
      chosen = [i for i, item in enumerate(inputs) if item.task in names]
      if chosen:
        logits = self._logits(params, [inputs[i] for i in chosen])
        for name in names:
          own = [n for n, i in enumerate(chosen) if inputs[i].task == name]
          places = [chosen[n] for n in own]
          found = results.of_logits(
            self.tasks[name],
            logits[own],
            [inputs[i].truncated for i in places],
            self._config.model.regression_head,
          )
          said |= zip(places, found, strict=True)
    return [said[i] for i in range(len(inputs))]

  def compile(self) -> None:
    """Compiles, or loads, the program of each size."""
    one = self.encode(next(iter(self.tasks)), [('', '')])
    _, params = self._trained[0]
    for size in self.sizes:
      for _, found in self._dispatch(params, one, np.arange(1), size):
        jax.block_until_ready(found)

  def _logits(self, params: Any, inputs: Sequence[Input]) -> np.ndarray:
    """[N, C], in batches of the largest size and one of what is left."""
    packing, largest = self._config.packing, self.sizes[-1]
    if packing.enabled:
      lengths = np.array([len(item.features.input_ids) for item in inputs])
      packed = packing_lib.pack(lengths, packing.row_length, packing.slots)
    else:
      packed = packing_lib.one_a_row(len(inputs))
    # Examples of the first rows fill as many rows without the others.
    whole = packed.num_rows // largest * largest
    rest = packing_lib.bucket(packed.num_rows - whole, self.sizes, 1)
    # All are dispatched before the first one is waited for.
    pending = [
      *self._dispatch(
        params, inputs, np.flatnonzero(packed.row < whole), largest
      ),
      *self._dispatch(
        params, inputs, np.flatnonzero(packed.row >= whole), rest
      ),
    ]
    num_outputs = self._programs.tasks.num_outputs
    logits = np.empty((len(inputs), num_outputs), np.float32)
    for places, found in pending:
      real = places >= 0
      logits[places[real]] = jax.device_get(found.slots)[real]
    return logits

  def _dispatch(
    self,
    params: Any,
    inputs: Sequence[Input],
    only: np.ndarray,
    size: int,
  ) -> list[tuple[np.ndarray, jax.Array]]:
    """Some of the inputs in batches of so many rows.

    Returns:
      Of each batch [B, S] the input in each slot, -1 where it is empty, and
      its logits [B, S, C] on the devices.
    """
    if len(only) == 0:
      return []
    chosen = [inputs[i] for i in only]
    tasks = self._programs.tasks
    return [
      (
        np.where(places < 0, -1, only[places]),
        self._programs.predict(params, batch),
      )
      for places, batch in batches.evaluation_batches(
        unlabelled.Held([item.features for item in chosen]),
        np.array([tasks.index[item.task] for item in chosen], np.int32),
        tasks.num_outputs,
        self._config.packing,
        size,
      )
    ]
