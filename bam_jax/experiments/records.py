"""The record of a finished run, `DONE`: its scores and package versions.

An undefined score is null in the file, and `undefined` holds the reason.
"""

from collections.abc import Mapping
import hashlib
import logging

import jax
import numpy as np

from bam_jax.distillation import quality
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import run_data
from bam_jax.experiments import runs as runs_lib
from bam_jax.inference import decisions
from bam_jax.runtime import joining
from bam_jax.runtime import processes
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import loop
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import spec as spec_lib


def make_record(
  plan: plan_lib.Plan,
  spec: spec_lib.TrainSpec,
  result: loop.Result,
  seconds: float,
  seeds_at_once: int,
) -> dict[str, object]:
  """Returns a run's record without scores; the scores are added later.

  `seconds` is the run's share of the training time of its group, which has
  `seeds_at_once` runs. It includes the wait for the group's compiled program.
  """
  stats = jax.local_devices()[0].memory_stats()  # None on a CPU
  versions = joining.package_versions().items()
  weights = spec.batches.class_weights
  return {
    # Number of steps after which the run had these parameters.
    'steps': result.best_step if spec.choosing else spec.num_steps,
    'best_step': result.best_step,
    **({'stopped_at': result.stopped_at} if spec.choosing else {}),
    'parameters': parameters_digest(result.params),
    'seconds': round(seconds, 2),
    'seeds_at_once': seeds_at_once,
    'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    'versions': ', '.join(map(' '.join, versions)),
    # The number so far; threads may still be compiling other programs.
    'compilations': plan.setup.programs.compilations,
    'peak_device_bytes': stats and stats['peak_bytes_in_use'],
    'shares': spec.batches.shares,
    'loss_weights': spec.batches.loss_weights,
    **({'class_weights': weights} if weights else {}),
  }


def save_outputs(
  plan: plan_lib.Plan,
  run: runs_lib.Run,
  record: Mapping[str, object],
  outputs: evaluate.Outputs,
  scores: evaluate.Scores,
) -> None:
  """Writes a run's predictions, then the run's record with `scores` added.

  In the written record, the scores of `record` are replaced, and also the
  quality of the outputs on the first scored split of each task. Fits the
  temperatures and thresholds that `config.decisions` asks for. Logs a warning
  for each undefined score.
  """
  dev = plan.data.scored_splits(run)
  path = plan.workspace.outputs(run.name)
  processes.run_on_first(evaluate.save, path, plan.tasks, dev, outputs)
  reasons = evaluate.why_undefined(dev, outputs, scores, plan.tasks)
  for task, by_split in reasons.items():
    for split, by_metric in by_split.items():
      for metric, reason in by_metric.items():
        logging.warning(
          '%s: %s of %s on %s is undefined: %s',
          *(run.name, metric, task, split, reason),
        )
  record = {**record, 'scores': scores, 'undefined': reasons}
  if run.is_search:
    record['held_out'] = {
      name: len(
        run_data.counted_rows(plan.tasks[name], by_split[task_lib.HELD_OUT])
      )
      for name, by_split in dev.items()
    }
  for name, splits in dev.items():
    task = plan.tasks[name]
    split, rows = next(iter(splits.items()))
    logits = outputs[name][split]
    uids, joined, firsts = task.kind.join_windows(task, logits, rows)
    measured = quality.measure(task, joined, rows.take('label', firsts))
    record = add_quality(
      record, name, split if run.is_search else 'dev', measured
    )
    if not run.fold and decisions.wanted(task, plan.config):
      decided = record.get('decisions', {})
      outcome = task.kind.measure(task, logits, rows)
      found = decisions.fit(task, plan.config, uids, outcome)
      record = {**record, 'decisions': {**decided, name: found}}
  plan.workspace.write_record(run.name, record)


def add_quality(
  record: Mapping[str, object],
  task: str,
  rows: str,
  measured: Mapping[str, float],
) -> dict[str, object]:
  """Returns a copy of a record, with the quality of a run's predictions added.

  `measured` is their accuracy and calibration on the rows that `rows` names.
  """
  kept = record.get('quality', {})
  own = kept.get(task, {}) | {rows: measured}
  return {**record, 'quality': {**kept, task: own}}


def parameters_digest(params: Mapping[str, object]) -> str:
  """Returns the sha256 of all parameters; all processes must call it.

  The digest covers the names, shapes and float32 bytes.
  """
  digest = hashlib.sha256()
  leaves, _ = jax.tree.flatten_with_path(mesh_lib.fetch(params))
  for path, leaf in leaves:
    digest.update(f'{jax.tree_util.keystr(path)}{leaf.shape}'.encode())
    digest.update(np.ascontiguousarray(leaf).tobytes())
  return digest.hexdigest()
