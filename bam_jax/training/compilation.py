"""Compiles programs in background threads before they are needed.

If a run has several processes, no process runs a program before all processes
have compiled it.
"""

from collections.abc import Callable, Hashable
from concurrent import futures
import logging
import os
import time
from typing import Any

import jax

from bam_jax.runtime import phases
from bam_jax.runtime import processes

# Compiler options by platform. On a GPU, independent kernels run concurrently,
# and matrix products use cuBLAS, which is as fast as XLA's Triton kernels and
# compiles several times faster (benchmarks/README.md).
COMPILER_OPTIONS = {
  'gpu': {
    'xla_gpu_command_buffer_scheduling_mode': 'CONCURRENT',
    'xla_gpu_enable_triton_gemm': False,
  }
}

# More options for the training step on GPUs that each hold all parameters. With
# these options, an all-reduce starts as soon as its operands are ready, even
# while other all-reduces run. It is launched in the same command buffer as the
# rest of the step. The last option is XLA's default plus COLLECTIVES. It is
# written in full because XLA would read `+COLLECTIVES` as a flag.
REPLICA_OPTIONS = {
  'xla_gpu_experimental_parallel_collective_overlap_limit': 1000,
  'xla_gpu_experimental_collective_start_as_early_as_possible': True,
  'xla_gpu_enable_command_buffer': (
    'FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,CONDITIONAL,'
    'COLLECTIVES'
  ),
}


class AheadCompiler:
  """Compiles programs in background threads and returns them by key.

  Only one thread traces programs, because tracing holds Python's lock (GIL).
  Other threads compile the programs in the same order, a few at a time, so that
  the first program is ready early.
  """

  def __init__(self):
    self._tracer = futures.ThreadPoolExecutor(1)
    # A compilation keeps about two cores busy.
    workers = max(1, (os.cpu_count() or 1) // 2)
    self._compilers = futures.ThreadPoolExecutor(workers)
    self._lower: dict[Hashable, Callable[[], jax.stages.Lowered]] = {}
    # The future of a trace; its result is the future of the compilation.
    self._traces: dict[Hashable, futures.Future[futures.Future]] = {}
    self._agreed: set[Hashable] = set()
    self._begun = 0.0

  def __contains__(self, key: Hashable) -> bool:
    return key in self._traces

  def start(
    self, key: Hashable, lower: Callable[[], jax.stages.Lowered]
  ) -> None:
    """Queues a program for compilation; ignores a key that is already known."""
    if key not in self:
      self._begun = self._begun or time.perf_counter()
      self._lower[key] = lower
      self._traces[key] = self._tracer.submit(self._trace, lower)

  @phases.phase(phases.COMPILING)
  def __getitem__(self, key: Hashable) -> jax.stages.Compiled:
    """Waits until all processes have compiled a program; returns the program.

    If the tracing of the program is still queued, a new thread traces it at
    once.

    Raises:
      Exception: the error that tracing or compiling raised.
    """
    if self._traces[key].cancel():
      urgent = futures.ThreadPoolExecutor(1)
      self._traces[key] = urgent.submit(self._trace, self._lower[key])
    program = self._traces[key].result().result()
    if key not in self._agreed:
      processes.wait_for_all()
      if not self._agreed:
        seconds = time.perf_counter() - self._begun
        logging.info('Compiled the first training step in %.0f s', seconds)
      self._agreed.add(key)
    return program

  def wait(self) -> dict[Hashable, jax.stages.Compiled]:
    """Waits until this process has compiled all programs; returns them."""
    return {k: trace.result().result() for k, trace in self._traces.items()}

  def cancel_queued(self) -> None:
    """Removes the programs whose tracing has not begun."""
    for key, trace in list(self._traces.items()):
      if trace.cancel():
        del self._traces[key]

  def _trace(self, lower: Callable[[], jax.stages.Lowered]) -> futures.Future:
    return self._compilers.submit(lower().compile)


def synchronized(function: jax.stages.Wrapped) -> Callable[..., Any]:
  """Makes a jitted function wait until all processes have compiled it.

  Every process must call the returned function, with arrays of the same shapes.
  `function` must have no static arguments. In a run with a single process, the
  returned function only calls `function`.
  """
  compiled: dict[Hashable, jax.stages.Compiled] = {}

  def call(*args: Any) -> Any:
    if not processes.is_multi_process():
      return function(*args)
    leaves, structure = jax.tree.flatten(args)
    key = (
      structure,
      *((x.shape, x.dtype, getattr(x, 'sharding', None)) for x in leaves),
    )
    if key not in compiled:
      compiled[key] = function.lower(*args).compile()
      processes.wait_for_all()
    return compiled[key](*args)

  return call
