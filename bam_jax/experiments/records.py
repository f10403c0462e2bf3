"""What a finished run leaves behind in its `DONE`."""

from collections.abc import Mapping
import hashlib
from importlib import metadata
import platform

import jax
import numpy as np

from bam_jax.training import job as job_lib
from bam_jax.training import loop
from bam_jax.training import mesh as mesh_lib


def record(
  job: job_lib.Job,
  result: loop.Result,
  seconds: float,
  seeds_at_once: int,
  compilations: int,
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
    'scores': result.scores,
    'quality': quality,
  }


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
