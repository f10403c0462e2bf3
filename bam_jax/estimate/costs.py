"""Measures how long the parts of a plan take, and the size of a checkpoint."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
import functools
import importlib
from pathlib import Path
import tempfile
import time
from typing import TypeVar

import jax
import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import step as step_lib
from bam_jax.data import shards
from bam_jax.estimate import remaining as remaining_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import records
from bam_jax.training import checkpoints as checkpoints_lib
from bam_jax.training import evaluate
from bam_jax.training import programs as programs_lib

# A step is repeated for about this many seconds, and at most this many times.
_SECONDS, _MAX_STEPS = 3.0, 50
# Fitting a linear probe is assumed to take as long as this many evaluations of
# its objective. Measured: 210 to 390, over tasks of all kinds.
_PROBE_STEPS = 250
# Number of timed resamples of the report's significance tests.
_RESAMPLES = 100

Batch = Mapping[str, np.ndarray]
Rows = shards.Columns
_T = TypeVar('_T')


def measure(
  plan: plan_lib.Plan,
  batches: Mapping[int, Batch],
  seeds: Collection[int],
  probes: Sequence[remaining_lib.Probe],
) -> dict[str, object]:
  """Measures how long each part of a plan takes.

  Args:
    plan: the plan. Evaluation is timed on dev rows of its first task.
    batches: number of rows B -> a batch of one seed.
    seeds: the numbers of seeds K that are trained at once.
    probes: the linear probes that are not fitted yet.

  Returns:
    A dict with these keys:

      `step`: `KxB` -> seconds per training step.
      `start`: seconds to make a run's state.
      `evaluation_batch`: seconds to evaluate one batch.
      `checkpoint`: seconds to write a checkpoint.
      `record`: seconds to compute the digest of the parameters, which is part
        of a finished run's record.
      `linear_probes`: task -> seconds for all probes of the task.
      `report`: seconds to write the report.
      `checkpoint_bytes`: size of a whole checkpoint.
      `params_bytes`: size of the parameters in a checkpoint.

  Raises:
    errors.UserError: a checkpoint can't be written.
  """
  programs = plan.setup.programs

  def start() -> step_lib.TrainState:
    params = plan.setup.initial_params(0)
    return jax.block_until_ready(programs.init_state(params, 0))

  # The first measurement compiles, so it does not count.
  measured = []
  for _ in range(3):
    state, start_seconds = _timed(start)
    once = {
      'start': start_seconds,
      'evaluation_batch': _evaluation_seconds(plan, state.params),
      **_measure_checkpoint(state, plan.workspace.root),
    }
    measured.append(once)
  costs = {name: min(each[name] for each in measured[1:]) for name in once}
  if probes:
    _evaluation_seconds(plan, state.params, is_frozen=True)  # Compiles it.
  steps = {}
  for count in sorted(seeds):
    states = state
    if count > 1:
      states = programs.seeds.stack((start() for _ in range(count)), count)
    for rows, batch in sorted(batches.items()):
      states, seconds = _measure_step(programs, states, batch, count)
      steps[f'{count}x{rows}'] = seconds
    del states
  return {
    'step': steps,
    **costs,
    'linear_probes': _measure_probes(plan, probes, costs['evaluation_batch']),
    'report': _measure_report(plan),
  }


def _timed(function: Callable[..., _T], *args: object) -> tuple[_T, float]:
  """Calls a function; returns its result and its duration in seconds."""
  began = time.perf_counter()
  return function(*args), time.perf_counter() - began


def _measure_step(
  programs: programs_lib.Programs,
  state: step_lib.TrainState,
  batch: Batch,
  seeds: int,
) -> tuple[step_lib.TrainState, float]:
  """Times a training step; returns the new state and seconds per step."""
  # With a learning rate of 0, the parameters do not change.
  schedule = step_lib.StepSchedule(0.0, 1.0, 1.0)

  def run(count: int) -> None:
    nonlocal state
    for _ in range(count):
      placed = programs.put_seeds([batch] * seeds) if seeds > 1 else batch
      state, _ = programs.train_step(state, placed, schedule)
    jax.block_until_ready(state)

  run(1)
  _, seconds = _timed(run, 1)
  count = int(np.clip(_SECONDS / seconds, 1, _MAX_STEPS))
  _, seconds = _timed(run, count)
  return state, seconds / count


def _measure_probes(
  plan: plan_lib.Plan,
  probes: Sequence[remaining_lib.Probe],
  evaluation_batch: float,
) -> dict[str, float]:
  """Estimates the seconds that linear probes take, by task.

  `evaluation_batch` is the number of seconds to encode one batch of rows. Only
  the fit of a task's first probe is timed. For the task's other probes, the
  time is assumed to be proportional to the number of rows.
  """
  fits: dict[str, float] = {}
  seconds: Counter[str] = Counter()
  for name, chosen, encoded in probes:
    rows = plan.features[name][plan.tasks[name].train_split]
    if name not in fits:
      fits[name] = _fit_seconds(plan, name, chosen) / len(chosen)
    batches = evaluation_batches(plan, rows, encoded)
    seconds[name] += evaluation_batch * batches + fits[name] * len(chosen)
  return dict(seconds)


def _fit_seconds(plan: plan_lib.Plan, name: str, chosen: np.ndarray) -> float:
  """Estimates the seconds that fitting a probe takes.

  Times one evaluation of the probe's objective on random vectors.
  """
  # Imported here, because importing scipy.optimize is slow.
  from bam_jax.training import linear

  task = plan.tasks[name]
  rows = plan.features[name][task.train_split]
  objective, fits = linear.make_objective(task, rows, chosen)
  count, width = len(chosen), plan.setup.programs.hidden_size
  if task.kind.per_token:
    count = np.count_nonzero(task.kind.token_targets(task, rows, chosen)[1])
  elif task.is_pair:
    width *= 4
  vectors = np.random.default_rng(0).normal(size=(count, width))
  vectors = jax.device_put(vectors.astype(np.float32))
  params = np.zeros((fits, width + 1, task.num_outputs), np.float32)

  def evaluate() -> None:
    jax.block_until_ready(objective(params, np.float32(1), vectors))

  evaluate()
  _, seconds = _timed(evaluate)
  return _PROBE_STEPS * seconds


def _measure_report(plan: plan_lib.Plan) -> float:
  """Estimates the seconds that writing the report takes.

  Times the import of the report's modules, and some resamples of its
  significance tests on random predictions. The rest of the report takes about
  twice as long as the import.
  """
  _, seconds = _timed(importlib.import_module, 'bam_jax.reporting.report')
  seconds *= 3
  from bam_jax.reporting import bootstrap
  from bam_jax.tasks import metrics

  rng = np.random.default_rng(0)
  runs = len(plan.config.variants) * len(config_lib.seeds_of_shard(plan.config))
  for task in plan.tasks.tasks:
    rows = plan.features[task.name][task.dev_splits[0]]
    count = len(rows)
    if task.kind.per_token:
      count = int(rows.ragged('input_ids')[1][-1])
    logits = rng.normal(size=(count, task.num_outputs)).astype(np.float32)
    measured = task.kind.measure(task, logits, rows)
    metric = metrics.METRICS[task.paper_metric]
    score = functools.partial(
      lambda metric, gold, *drawn: metric(drawn[0], gold, drawn[1]),
      metric,
      measured.gold,
    )
    outputs = np.stack([metric.first_argument(measured)] * runs)
    _, took = _timed(bootstrap.drawn_scores, [outputs], score, rng, _RESAMPLES)
    seconds += took * bootstrap.RESAMPLES / _RESAMPLES
  return seconds


def _evaluation_seconds(
  plan: plan_lib.Plan, params: Mapping[str, object], is_frozen: bool = False
) -> float:
  """Returns seconds per evaluation batch; if `is_frozen`, encoder only."""
  task = plan.tasks.tasks[0]
  rows = plan.features[task.name][task.dev_splits[0]]
  packing, counted = plan.config.packing, []
  count = max(4 * len(rows) // evaluation_batches(plan, rows), 1)
  few = np.arange(min(len(rows), count))
  where = plan.setup.programs, params, rows, 0
  _, seconds = _timed(
    evaluate.predict, *where, packing, counted.append, few, is_frozen
  )
  return seconds / len(counted)


def evaluation_batches(
  plan: plan_lib.Plan, rows: Rows, count: int | None = None
) -> int:
  """Estimates the number of evaluation batches for some rows.

  With `count`, the estimate is for `count` rows of the same mean length.
  """
  count = len(rows) if count is None else count
  packing, filled = plan.config.packing, count
  if packing.enabled:
    tokens = int(rows.ragged('input_ids')[1][-1]) * count / len(rows)
    filled = max(tokens / packing.row_length, filled / packing.slots)
  size = evaluate.batch_rows(plan.setup.programs, packing)
  return max(int(-(-filled // size)), 1)


def _measure_checkpoint(
  state: step_lib.TrainState, workdir: Path
) -> dict[str, float]:
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with (
      tempfile.TemporaryDirectory(dir=workdir, prefix='.estimate-') as name,
      checkpoints_lib.Checkpoints(Path(name)) as saved,
    ):
      _, seconds = _timed(lambda: (saved.save(state, 0.0), saved.wait()))
      _, record = _timed(records.parameters_digest, state.params)
  except OSError as e:
    raise errors.UserError(
      f'{workdir}: a checkpoint cannot be written there ({e.strerror}); make'
      ' room, or choose another --workdir'
    ) from e
  # Compression hardly shrinks trained parameters and optimizer moments, so the
  # sizes in memory are used.
  whole, params = (
    sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    for tree in (state, state.params)
  )
  return {
    'checkpoint': seconds,
    'record': record,
    'checkpoint_bytes': whole,
    'params_bytes': params,
  }
