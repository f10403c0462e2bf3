"""Memory of a training step on long rows, as the compiler plans it.

  python -m benchmarks.long_rows [--arch=modernbert-base] [--lengths=2048,8192]

The step of one row is compiled for this machine and not run. A line has the
tokens of the row, the GiB of the state, those of temporary arrays, and those
that the probabilities of one layer would take as [heads, length, length].
"""

import argparse

import jax
import jax.numpy as jnp

from bam_jax import config as config_lib
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import kernels
from bam_jax.tasks import glue
from bam_jax.tasks import task as task_lib
from bam_jax.training import mesh as mesh_lib
from bam_jax.training import programs as programs_lib

_VOCABULARY = 50368


def measure(arch: str, length: int) -> tuple[float, float, float]:
  """Returns GiB of the state, of temporary arrays and of one layer's square."""
  device = jax.devices()[0]
  platform = kernels.find_platform(device)
  config = family.EncoderConfig(_VOCABULARY, **families.presets()[arch])
  mesh = mesh_lib.make_mesh(config_lib.MeshConfig(1, 1), [device])
  tasks = task_lib.TaskTable((glue.TASKS['rte'],))
  dtype = jnp.float32 if platform == 'cpu' else jnp.bfloat16
  model = heads.MultiTaskModel(
    config.without_dropout(),
    num_tasks=len(tasks),
    num_outputs=tasks.num_outputs,
    compute=family.Compute(jnp.dtype(dtype), False, mesh, platform),
  )
  programs = programs_lib.Programs(model, tasks, config_lib.Config(), mesh)
  compiled = programs.lower(1, length, slots=length // 8).compile()
  memory = compiled.memory_analysis()
  return (
    memory.argument_size_in_bytes / 2**30,
    memory.temp_size_in_bytes / 2**30,
    config.num_heads * length**2 * 4 / 2**30,
  )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--arch', default='modernbert-base')
  parser.add_argument('--lengths', default='2048,8192')
  args = parser.parse_args()
  print('tokens  state  temporary  square')
  for length in map(int, args.lengths.split(',')):
    state, temporary, square = measure(args.arch, length)
    print(f'{length:6}  {state:5.2f}  {temporary:9.2f}  {square:6.2f}')


if __name__ == '__main__':
  main()
