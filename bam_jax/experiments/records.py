"""The record of a finished run, its file `DONE`: scores, quality, versions.

An undefined score is null there, and `undefined` holds the reason. Records that
are older than that key hold 0 instead.
"""

from collections.abc import Mapping
import hashlib
from importlib import metadata
import logging
import math
from pathlib import Path
import platform

import jax
import numpy as np

from bam_jax.distillation import quality
from bam_jax.runtime import processes
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import job as job_lib
from bam_jax.training import loop
from bam_jax.training import mesh as mesh_lib

_ALWAYS_DEFINED = ('accuracy', 'exact_match', 'answer_f1')


# task -> `dev` or `train` -> name -> value, as `quality.measure` returns it
Quality = Mapping[str, Mapping[str, Mapping[str, float]]]


def make_record(
  job: job_lib.Job,
  result: loop.Result,
  seconds: float,
  seeds_at_once: int,
  compilations: int,
  entries: Mapping[str, object],
) -> dict[str, object]:
  """Returns the record of a run that has just been trained.

  Args:
    job: what was trained.
    result: of the training.
    seconds: this run's share of the training time of its group, including the
      time that the group waited for its program.
    seeds_at_once: number of runs in the group.
    compilations: programs traced so far; threads may still be compiling others.
    entries: what `save_outputs` returned.
  """
  return {
    'steps': job.num_steps,
    'best_step': result.best_step,
    'parameters': parameters_digest(result.params),
    'seconds': round(seconds, 2),
    'seeds_at_once': seeds_at_once,
    'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    'versions': _versions(),
    'compilations': compilations,
    'peak_device_bytes': _peak_device_bytes(),
    'shares': job.batches.shares,
    **entries,
  }


def save_outputs(
  run: str,
  path: Path,
  dev: evaluate.Splits,
  outputs: evaluate.Outputs,
  scores: evaluate.Scores,
  tasks: task_lib.TaskTable,
) -> dict[str, object]:
  """Writes a run's outputs on dev splits; returns its scores and their quality.

  Undefined scores are logged.

  Args:
    run: name of the run.
    path: of the file `outputs.npz`.
    dev: the rows.
    outputs: on these rows.
    scores: of the outputs.
    tasks: the tasks of the plan.

  Returns:
    Entries of the record: `scores`, nan where undefined; `undefined`: task ->
    dev split -> metric -> reason; and `quality` on the first dev splits.
  """
  processes.run_on_first(evaluate.save, path, tasks, dev, outputs)
  reasons = evaluate.why_undefined(dev, outputs, scores, tasks)
  for task, by_split in reasons.items():
    for split, by_metric in by_split.items():
      for metric, reason in by_metric.items():
        logging.warning(
          '%s: %s of %s on %s is undefined: %s',
          *(run, metric, task, split, reason),
        )
  found = {}
  for name, splits in dev.items():
    split = tasks[name].dev_splits[0]
    label = splits[split].take('label', np.arange(len(splits[split])))
    found[name] = {
      'dev': quality.measure(tasks[name], outputs[name][split], label)
    }
  return {'scores': scores, 'undefined': reasons, 'quality': found}


def add_quality(
  record: Mapping[str, object], added: Quality
) -> dict[str, object]:
  """Returns a record with entries added to its `quality`, or replaced."""
  found = dict(record.get('quality', {}))
  for task, by_rows in added.items():
    found[task] = found.get(task, {}) | by_rows
  return {**record, 'quality': found}


def read_scores(record: Mapping[str, object]) -> evaluate.Scores:
  """Returns the scores of a stored record, nan where undefined."""
  return {
    task: {
      split: {
        metric: math.nan if value is None else value
        for metric, value in by_metric.items()
      }
      for split, by_metric in by_split.items()
    }
    for task, by_split in record['scores'].items()
  }


def may_hide_undefined(record: Mapping[str, object]) -> bool:
  """Whether a 0 in an older record may stand for an undefined score."""
  return 'undefined' not in record and any(
    value == 0 and metric not in _ALWAYS_DEFINED
    for by_split in record['scores'].values()
    for by_metric in by_split.values()
    for metric, value in by_metric.items()
  )


def read_reasons(record: Mapping[str, object]) -> evaluate.Reasons:
  """Returns why scores are undefined; older records don't tell."""
  return record.get('undefined', {})


def _versions() -> str:
  """Versions of Python and of the packages that decide what a run computes."""
  packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
  found = (f'{name} {metadata.version(name)}' for name in packages)
  return ', '.join([f'python {platform.python_version()}', *found])


def _peak_device_bytes() -> int | None:
  """Peak memory of the first device since the start; None on a CPU."""
  stats = jax.local_devices()[0].memory_stats()
  return stats and stats['peak_bytes_in_use']


def parameters_digest(params: Mapping[str, object]) -> str:
  """sha256 over names, shapes and float32 bytes of all parameters.

  All processes call it.
  """
  digest = hashlib.sha256()
  leaves, _ = jax.tree.flatten_with_path(mesh_lib.fetch(params))
  for path, leaf in leaves:
    digest.update(f'{jax.tree_util.keystr(path)}{leaf.shape}'.encode())
    digest.update(np.ascontiguousarray(leaf).tobytes())
  return digest.hexdigest()
