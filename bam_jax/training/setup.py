"""Sets JAX options; makes the programs and weights that all runs share."""

import collections
import contextlib
import logging
import os
from pathlib import Path
import sys

import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import kernels
from bam_jax.modeling import layers
from bam_jax.modeling import pretrained as pretrained_lib
from bam_jax.runtime import phases
from bam_jax.tasks import task as task_lib
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import programs as programs_lib


def configure_jax(config: config_lib.Config, workdir: Path) -> None:
  """Sets process-wide options; call it before anything runs on a device.

  Compiled programs are cached in the work directory, so that a rerun starts
  without compiling.
  """
  if config.train.deterministic:
    flags = os.environ.get('XLA_FLAGS', '')
    os.environ['XLA_FLAGS'] = f'{flags} --xla_gpu_deterministic_ops=true'
  # The thread that makes batches and the thread that dispatches steps share
  # Python's lock (GIL). Steps may be only 2 ms apart. With Python's default
  # switch interval of 5 ms, the two threads would wait for each other.
  sys.setswitchinterval(5e-4)
  jax.config.update('jax_compilation_cache_dir', str(workdir / 'compiled'))
  # Otherwise JAX would keep the cache directory of an earlier plan of this
  # process.
  compilation_cache.reset_cache()
  # With JAX's default of one second, the program that draws the initial weights
  # would not be cached.
  jax.config.update(
    'jax_persistent_cache_min_compile_time_secs', phases.LEAST_KEPT
  )


def start_devices(predicts: bool = False) -> None:
  """Starts the devices and logs them.

  Call it before long work: if the devices did not start, that work would be
  wasted.

  Args:
    predicts: whether this process only predicts many rows. If True, JAX treats
      a CPU with several cores as two devices, unless the user has set the
      number of CPU devices. It is faster to run two small matrix products in
      parallel, one per device, than to split each product between the cores
      (benchmarks/README.md). Each device has a copy of the parameters.

  Raises:
    errors.UserError: the requested platform is not available.
  """
  is_told = jax.config.jax_num_cpu_devices != -1 or (
    'host_platform_device_count' in os.environ.get('XLA_FLAGS', '')
  )
  if predicts and not is_told:
    # JAX raises an error if the devices already run, for example in a process
    # that has joined others.
    with contextlib.suppress(RuntimeError):
      jax.config.update('jax_num_cpu_devices', min(os.cpu_count() or 1, 2))
  try:
    devices = jax.devices()
  # JAX also uses assertions for its checks.
  except (AssertionError, RuntimeError) as error:
    asked = jax.config.jax_platforms or 'any'
    reason = next(iter(str(error).splitlines()), 'no such device')
    raise errors.UserError(
      f'devices: JAX cannot start {asked} ({reason}); change JAX_PLATFORMS, or'
      " install what it needs (pip install 'bam-jax[cuda]', for example)"
    ) from error
  kinds = collections.Counter(each.device_kind for each in devices)
  described = ', '.join(f'{count} x {kind}' for kind, count in kinds.items())
  logging.info('devices: %s', described)


class Setup:
  """The compiled programs of a plan, and the initial weights of its runs."""

  def __init__(
    self,
    config: config_lib.Config,
    tasks: task_lib.TaskTable,
    encoder: pretrained_lib.Encoder,
  ):
    dtype = config.model.dtype
    if dtype == 'auto':
      on_cpu = jax.default_backend() == 'cpu'
      dtype = 'float32' if on_cpu else 'bfloat16'
    mesh = mesh_lib.make_mesh(config.mesh)
    platform = kernels.find_platform(mesh.devices.flat[0])
    model = heads.MultiTaskModel(
      config=encoder.config,
      num_tasks=len(tasks),
      num_outputs=tasks.num_outputs,
      token_heads=tasks.token_heads,
      token_outputs=tasks.token_outputs,
      compute=family.Compute(
        dtype=jnp.dtype(dtype),
        remat=config.model.remat,
        mesh=mesh,
        platform=platform if config.model.kernels or platform == 'cpu' else '',
      ),
      glorot_outputs=tuple(task.num_outputs for task in tasks.tasks)
      if config.model.head_init == 'glorot_uniform'
      else (),
      bi_encoder_heads=tasks.bi_encoder_heads,
    )
    self.programs = programs_lib.Programs(model, tasks, config, mesh)
    pretrained = encoder.load_params(config.model.layers)
    has_no_pooler = pretrained and 'pooler' not in pretrained
    pools = families.FAMILIES[encoder.config.family].pools
    if has_no_pooler and encoder.config.pooling in pools:
      logging.warning(
        '%s has no pooler, so the pooler starts from random weights',
        config.model.init,
      )
    # Stacked once for all seeds.
    self._pretrained = layers.stack(pretrained) if pretrained else {}

    def draw_rest(seed: np.uint32) -> dict[str, object]:
      params = heads.traced_init_params(model, jax.random.key(seed))
      return {k: v for k, v in params.items() if k not in self._pretrained}

    # A jitted `draw_rest` draws only the few parameters that it returns: XLA
    # removes the drawing of parameters that are pretrained.
    self._draw = (
      jax.jit(draw_rest)
      if self._pretrained
      else lambda seed: heads.init_params(model, jax.random.key(seed))
    )

  def initial_params(self, seed: int) -> dict[str, object]:
    """Returns the initial parameters of a run with the given seed.

    Parameters that are not pretrained are drawn at random from the seed. All
    parameters are host arrays with stacked layers. The caller must not change
    them, because all seeds share the pretrained arrays.
    """
    drawn = jax.device_get(self._draw(np.uint32(seed)))
    return drawn | self._pretrained if self._pretrained else layers.stack(drawn)
