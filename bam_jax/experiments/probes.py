"""Linear probes: linear models on the vectors of an encoder before training.

A probe per task is a baseline. With `model.head_init=linear_probe`, probes also
initialise the heads (Kumar et al. 2022, "Fine-tuning can distort pretrained
features").
"""

from collections.abc import Mapping
import typing

import numpy as np

from bam_jax.data import columns as columns_lib
from bam_jax.data import shards
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import run_data
from bam_jax.experiments import runs as runs_lib
from bam_jax.runtime import phases
from bam_jax.runtime import processes
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate

if typing.TYPE_CHECKING:
  from bam_jax.training import linear

# Maximum number of training rows of a probe; and maximum number of tokens in
# these rows, for tasks with outputs per token.
_MOST_ROWS = 10_000
_MOST_TOKENS = 50_000

Params = Mapping[str, object]


def choose_rows(
  task: task_lib.Task, rows: shards.Columns, among: np.ndarray | None = None
) -> np.ndarray:
  """Draws the training rows of a probe at random, without swapped copies.

  `among` has the indices of the rows to draw from; None: all rows. Returns the
  indices of the n drawn rows, ascending, [n].
  """
  uids = rows.uids
  among = range(len(rows)) if among is None else among.tolist()
  drawn = np.random.default_rng(0).permutation(
    [i for i in among if not task_lib.is_swapped(uids[i])]
  )[:_MOST_ROWS]
  if task.kind.per_token:
    lengths = np.diff(rows.ragged('input_ids')[1])[drawn]
    drawn = drawn[np.cumsum(lengths) <= _MOST_TOKENS]
  return np.sort(drawn)


def fit(
  plan: plan_lib.Plan,
  task: task_lib.Task,
  params: Params,
  rows: shards.Columns,
  chosen: np.ndarray,
  is_apart: bool,
) -> 'linear.Linear':
  """Fits a probe to at least two rows; see `encode` for the arguments."""
  # Imported here, because importing scipy.optimize is slow.
  from bam_jax.training import linear

  vectors = encode(plan, task, params, rows, chosen, is_apart)
  if task.kind.per_token:
    vectors = vectors[task.kind.token_targets(task, rows, chosen)[1] > 0]
  if task.class_weights:
    counted = run_data.counted_rows(task, rows.select(chosen))
    task = task.kind.weigh(task, counted)
  return linear.fit(task, vectors, rows, chosen)


def encode(
  plan: plan_lib.Plan,
  task: task_lib.Task,
  params: Params,
  rows: shards.Columns,
  chosen: np.ndarray,
  is_apart: bool,
) -> np.ndarray:
  """Encodes rows as vectors, [n, D], or [tokens, D] if outputs are per token.

  If `is_apart`, the two texts of a pair are encoded separately, as unit vectors
  u and v. The result is then u, v, |u - v| and u * v, concatenated, [n, 4 D]
  (Conneau et al. 2017, "InferSent"). Probes on these vectors score much better
  than probes on one vector of both texts as one input: with MiniLM 87.4 against
  43.5 on STS-B, 75.5 against 68.9 on MRPC, 61.4 against 51.6 on RTE.

  Args:
    plan: the plan, which has the compiled programs.
    task: the task.
    params: the encoder's parameters on the devices.
    rows: rows of the task.
    chosen: [n] indices of the rows to encode.
    is_apart: whether the two texts of a pair are encoded separately. This has
      no effect on tasks with single texts or with outputs per token.
  """

  def encode(rows: kind_lib.Rows, chosen: np.ndarray) -> np.ndarray:
    return evaluate.predict(
      plan.setup.programs,
      params,
      rows,
      plan.tasks.index[task.name],
      plan.config.packing,
      lambda _: plan.preemption_signal.check(),
      chosen,
      is_frozen=True,
    )

  if task.kind.per_token or not task.is_pair or not is_apart:
    return encode(rows, chosen)
  texts = _texts(task, rows, chosen, plan.encoder.tokenizer.num_separators)
  vectors = encode(texts, np.arange(2 * len(chosen)))
  u, v = np.split(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 2)
  return np.concatenate([u, v, np.abs(u - v), u * v], axis=1)


def _texts(
  task: task_lib.Task,
  rows: shards.Columns,
  chosen: np.ndarray,
  num_separators: int,
) -> columns_lib.InMemory:
  """Returns all first texts of the chosen pairs, then all second texts.

  Each text ends with one [SEP], even if the tokenizer puts several [SEP]
  between the two texts of a pair.
  """
  more = 0 if task.is_bi_encoder else num_separators - 1
  values, offsets = rows.ragged('input_ids')
  lengths = rows.fixed('length_a')
  first, second = [], []
  for row in chosen:
    uid = rows.uids[row]
    ids, length = values[offsets[row] : offsets[row + 1]], int(lengths[row])
    alone = length - more
    first.append(kind_lib.Features(uid, ids[:alone], alone, 0.0))
    # For a bi-encoder, the second text already begins with a [CLS].
    cls = ids[: 0 if task.is_bi_encoder else 1]
    ids = np.concatenate([cls, ids[length:]])
    second.append(kind_lib.Features(uid, ids, len(ids), 0.0))
  return columns_lib.InMemory(first + second)


class ProbedHeads:
  """Makes a run's initial parameters, with linear probes as the heads."""

  def __init__(self, plan: plan_lib.Plan):
    self._plan = plan
    # Cache: runs of several seeds have the same probes if their rows are equal.
    self._found: dict[object, tuple[np.ndarray, np.ndarray]] = {}

  def key(self, run: runs_lib.Run, task: str) -> object:
    """Returns a key that is equal for runs with the same probe of a task."""
    # Random weights differ between seeds.
    seed = None if self._plan.encoder.digest else run.seed
    return task, run.fold, run.held_out, seed

  def choose_rows(
    self, run: runs_lib.Run, task: task_lib.Task
  ) -> tuple[shards.Columns, np.ndarray]:
    """Returns a task's training rows, and the indices of the probe's rows."""
    rows, among = self._plan.data.labelled_rows(run, task.name)
    return rows, choose_rows(task, rows, among)

  def initial_params(self, run: runs_lib.Run) -> Params:
    """Returns a run's initial parameters, as host arrays with stacked layers.

    If a task has fewer than two training rows, its head stays random.
    """
    plan = self._plan
    params = plan.setup.initial_params(run.seed)
    heads = {name: np.array(table) for name, table in params['heads'].items()}
    for name in run.tasks:
      key = self.key(run, name)
      if key not in self._found:
        self._found[key] = self._fit(run, plan.tasks[name], params)
      kernel, bias = self._found[key]
      if not len(kernel):
        continue
      head, outputs = plan.tasks.index[name], len(bias)
      size = heads['kernel'].shape[1]
      heads['kernel'][head, :, :outputs] = kernel[:size]
      heads['bias'][head, :outputs] = bias
      if plan.tasks[name].is_bi_encoder:
        number = plan.tasks.bi_encoder_heads.index(head)
        heads['pair_kernel'][number, :, :outputs] = kernel[size:]
    return {**params, 'heads': heads}

  @phases.phase(phases.PROBES)
  def _fit(
    self, run: runs_lib.Run, task: task_lib.Task, params: Params
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns a probe's kernel and bias; both empty if rows are too few."""
    plan = self._plan
    rows, chosen = self.choose_rows(run, task)
    if len(chosen) < 2:
      return np.empty(0), np.empty(0)
    encoder = plan.setup.programs.place_encoder(params)
    model = fit(plan, task, encoder, rows, chosen, task.is_bi_encoder)
    kernel = model.kernel / model.deviation[:, None]
    bias = model.bias - model.mean @ kernel
    # Process 0 sends its values to the other processes, because their
    # processors may round differently.
    values = processes.run_on_first(lambda: [kernel.tolist(), bias.tolist()])
    return tuple(np.array(value, np.float32) for value in values)
