"""Finds the device memory that training steps need, by compiling them."""

from collections.abc import Collection
import dataclasses
import os

import jax
import numpy as np
from rich.filesize import decimal

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.training import programs as programs_lib


def device_memory() -> int:
  """Returns the memory of one device in bytes; CPU devices share the RAM."""
  device = jax.local_devices()[0]
  stats = device.memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit']
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return memory // len(jax.local_devices())


def compile_steps(
  programs: programs_lib.Programs,
  packing: config_lib.PackingConfig,
  rows: Collection[int],
  seeds: Collection[int],
) -> dict[str, int]:
  """Compiles all training steps; returns the memory of the largest step.

  Compiles a step for each row bucket and each number of `seeds` that are
  trained at once. All buckets are compiled, because the largest one needs the
  most memory, even if few steps fill it.

  Returns:
    A dict. `seeds` and `rows` are the numbers of seeds (K) and of rows (B) of
    the step. The other values are bytes on one device:

      `arguments`: the state and the batch.
      `temporary`, `code`: temporary arrays and code of the compiled step.
      `copies`: the extra states that exist while K states are stacked.
      `needed`: the peak.
      `device`: the whole memory of the device.

  Raises:
    errors.UserError: a step needs more memory than a device has.
  """
  buckets = packing.row_buckets if packing.enabled else ()
  packing = dataclasses.replace(
    packing,
    row_buckets=tuple(sorted({*buckets, *rows})),
    slots=packing.used_slots,
  )
  try:
    programs.compile_ahead(packing, seeds)
    found = []
    for (count, size), compiled in programs.compiled().items():
      stats = compiled.memory_analysis()
      memory = {
        'seeds': count,
        'rows': size,
        'arguments': stats.argument_size_in_bytes,
        'temporary': stats.temp_size_in_bytes,
        'code': stats.generated_code_size_in_bytes,
        # One seed's state before it is stacked with the other states, and what
        # it is made from: the initial parameters, or the initial state that a
        # checkpoint replaces.
        'copies': 2 * state_bytes(programs) if count > 1 else 0,
      }
      running = memory['temporary'] + memory['code']
      memory['needed'] = memory['arguments'] + max(running, memory['copies'])
      memory['device'] = device_memory()
      found.append(memory)
  finally:
    programs.stop_compiling()
  largest = max(found, key=lambda memory: memory['needed'])
  if largest['needed'] > largest['device']:
    raise errors.UserError(
      f'a training step of {largest["seeds"]} x {largest["rows"]} rows needs'
      f' {decimal(largest["needed"])} on each device, which has'
      f' {decimal(largest["device"])}; raise config.train.accumulate,'
      ' set config.model.remat=True, or lower config.train.seeds_at_once'
    )
  return largest


def state_bytes(programs: programs_lib.Programs) -> int:
  """Returns how many bytes a run's training state takes on one device."""
  return sum(
    leaf.dtype.itemsize * int(np.prod(leaf.sharding.shard_shape(leaf.shape)))
    for leaf in jax.tree.leaves(programs.abstract_state)
  )
