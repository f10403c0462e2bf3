"""What a finished run leaves behind in its `DONE`.

An undefined score is null there, and `undefined` has the reason. Records that
are older than that key have 0 in its place.
"""

from collections.abc import Mapping
import hashlib
from importlib import metadata
import logging
import math
import platform

import jax
import numpy as np

from bam_jax import config as config_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate
from bam_jax.training import job as job_lib
from bam_jax.training import loop
from bam_jax.training import mesh as mesh_lib

_ALWAYS_DEFINED = ('accuracy', 'exact_match', 'answer_f1')


def record(
  job: job_lib.Job,
  result: loop.Result,
  seconds: float,
  seeds_at_once: int,
  compilations: int,
  scores: Mapping[str, object],
  quality: Mapping[str, object],
) -> dict[str, object]:
  """The record of a run that has just been trained.

  Args:
    job: what was trained.
    result: what came of it.
    seconds: its share of the time of those trained with it, what they waited
      for their program included.
    seeds_at_once: how many those are, itself included.
    compilations: programs traced so far; threads may be at others still.
    scores: what `scored` returned.
    quality: of its outputs on dev, by task.
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
    **scores,
    'quality': quality,
  }


def scored(
  run: str,
  dev: evaluate.Splits,
  outputs: evaluate.Outputs,
  scores: evaluate.Scores,
  tasks: task_lib.TaskTable,
  config: config_lib.Config,
) -> dict[str, object]:
  """The entries of a record for a run's scores; logs undefined ones.

  Returns:
    `scores`, nan where undefined, and `undefined`: task -> dev split -> metric
    -> reason.
  """
  reasons = evaluate.why_undefined(
    dev, outputs, scores, tasks, config.model.regression_head
  )
  for task, by_split in reasons.items():
    for split, by_metric in by_split.items():
      for metric, reason in by_metric.items():
        logging.warning(
          '%s: %s of %s on %s is undefined: %s',
          *(run, metric, task, split, reason),
        )
  return {'scores': scores, 'undefined': reasons}


def scores_of(record: Mapping[str, object]) -> evaluate.Scores:
  """The scores of a record that was read back, nan where undefined."""
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


def reasons_of(record: Mapping[str, object]) -> evaluate.Reasons:
  """Why scores of a record are undefined; nothing in older records."""
  return record.get('undefined', {})


def _versions() -> str:
  """Of Python and of the packages that decide what a run computes."""
  packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
  found = (f'{name} {metadata.version(name)}' for name in packages)
  return ', '.join([f'python {platform.python_version()}', *found])


def _peak_device_bytes() -> int | None:
  """Most memory in use on a device since the process began; None on a CPU."""
  stats = jax.local_devices()[0].memory_stats()
  return stats and stats['peak_bytes_in_use']


def parameters_digest(params: Mapping[str, object]) -> str:
  """sha256 over names, shapes and float32 bytes of all parameters.

  Every process calls it.
  """
  digest = hashlib.sha256()
  leaves, _ = jax.tree.flatten_with_path(mesh_lib.fetch(params))
  for path, leaf in leaves:
    digest.update(f'{jax.tree_util.keystr(path)}{leaf.shape}'.encode())
    digest.update(np.ascontiguousarray(leaf).tobytes())
  return digest.hexdigest()
