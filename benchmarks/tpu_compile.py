"""Compiles training steps for real TPUs, on a machine without any.

  pip install 'jax[tpu]'
  python -m benchmarks.tpu_compile [--only v5e:2x2] [--layers 24]

libtpu holds the compiler and describes its topologies, so a step that does not
compile, or does not fit, is found before a TPU is rented. Each case is written
into benchmarks/tpu_compile.json when it is done, and a case that is there is
not compiled again. All figures are of one chip.
"""

import argparse
import json
import os
from pathlib import Path
import re
import time

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')

# After the platform is chosen.
import jax
from jax.experimental import topologies
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

_OUTPUT = Path(__file__).with_suffix('.json')

# Topology, rows a chip, the sizes of the mesh axes data and fsdp, -1 being all
# the chips, tokens a row, and the encoder.
_DATA, _FSDP, _BERT = (-1, 1), (1, -1), 'bert-large'
CASES = (
  ('v5e:2x2', 16, _DATA, 128, _BERT),
  ('v4:2x2x1', 16, _DATA, 128, _BERT),
  ('v5p:2x2x1', 16, _DATA, 128, _BERT),
  ('v6e:2x4', 16, _DATA, 128, _BERT),
  ('v5e:16x16', 8, _DATA, 128, _BERT),
  ('v5e:2x2', 16, _FSDP, 128, _BERT),
  ('v5e:16x16', 8, (32, 8), 128, _BERT),
  ('v5e:2x2', 8, _DATA, 256, _BERT),
  ('v4:2x2x1', 8, _DATA, 256, _BERT),
  ('v5e:2x2', 4, _DATA, 512, _BERT),
  ('v6e:2x4', 4, _DATA, 512, _BERT),
  ('v5e:2x2', 1, _DATA, 2048, 'modernbert-base'),
  ('v5e:2x2', 1, _DATA, 8192, 'modernbert-base'),
)

# Of a chip, as Google's documentation has them: memory in GiB.
MEMORY = {'v4': 32, 'v5e': 16, 'v5p': 95, 'v6e': 32}

_COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'all-reduce-scatter',
)
_BYTES = {'f32': 4, 'bf16': 2, 's32': 4, 'u32': 4, 'pred': 1}


def compile_case(
  topology: str,
  rows: int,
  sizes: tuple[int, int],
  row_length: int,
  arch: str,
  layers: int,
) -> dict[str, object]:
  """Compiles one case; returns what the compiler reports.

  Args:
    topology: as libtpu names it.
    rows: a chip.
    sizes: of the mesh axes data and fsdp.
    row_length: tokens a row.
    arch: preset of the encoder.
    layers: its first ones, at most so many.
  """
  # Both cores of a v4 chip as one device, as JAX has them on a TPU.
  options = {'chip_config_name': 'megacore'} if topology[:2] == 'v4' else {}
  devices = topologies.get_topology_desc(
    platform='tpu', topology_name=topology, **options
  ).devices
  mesh = mesh_lib.make_mesh(config_lib.MeshConfig(*sizes), devices)
  chips = mesh.size
  config = family.EncoderConfig(30522, **families.presets()[arch])
  of = families.FAMILIES[config.family]
  config = of.keep_layers(config, range(min(layers, config.num_layers)))
  tasks = task_lib.TaskTable(tuple(glue.TASKS.values()))
  model = heads.MultiTaskModel(
    config,
    num_tasks=len(tasks),
    num_outputs=tasks.num_outputs,
    compute=family.Compute(
      dtype=jnp.dtype(jnp.bfloat16),
      mesh=mesh,
      platform=kernels.find_platform(devices[0]),
    ),
  )
  programs = programs_lib.Programs(model, tasks, config_lib.Config(), mesh)
  start = time.perf_counter()
  lowered = programs.lower(rows * chips, row_length, slots=16)
  lowered_at = time.perf_counter()
  compiled = lowered.compile()
  compiled_at = time.perf_counter()
  memory = compiled.memory_analysis()
  cost = compiled.cost_analysis()
  needed = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )
  return {
    'topology': topology,
    'chips': chips,
    'mesh': dict(mesh.shape),
    'rows_a_chip': rows,
    'row_length': row_length,
    'layers': config.num_layers,
    'trace_seconds': round(lowered_at - start, 1),
    'compile_seconds': round(compiled_at - lowered_at, 1),
    'state_bytes': memory.argument_size_in_bytes,
    'temporary_bytes': memory.temp_size_in_bytes,
    'needed_bytes': needed,
    'memory_share': round(needed / MEMORY[topology.split(':')[0]] / 2**30, 3),
    'flops': cost['flops'],
    'bytes_accessed': cost['bytes accessed'],
    'collectives': _collectives(compiled.as_text()),
    'jax': jax.__version__,
  }


def _collectives(text: str) -> dict[str, dict[str, int]]:
  """Counts the results of each kind of collective, and their bytes."""
  found = {}
  for kind in _COLLECTIVES:
    # `-start` and `-done` are the two halves of one that runs beside others;
    # a reduce-scatter is a fusion that calls a computation of that name.
    lines = re.findall(rf'= (.*?) {kind}(?:-start)?\(', text)
    lines += re.findall(rf'= (.*?) fusion\(.*calls=%?{kind}[.\d]*,?', text)
    if lines:
      sizes = [_result_bytes(line) for line in lines]
      found[kind] = {'count': len(sizes), 'bytes': sum(sizes)}
  return found


def _result_bytes(shapes: str) -> int:
  total = 0
  for kind, dimensions in re.findall(r'(\w+)\[([\d,]*)\]', shapes):
    count = 1
    for dimension in filter(None, dimensions.split(',')):
      count *= int(dimension)
    total += _BYTES.get(kind, 0) * count
  return total


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--only', help='one topology of the list')
  parser.add_argument('--layers', type=int, default=24)
  parser.add_argument('--output', type=Path, default=_OUTPUT)
  args = parser.parse_args()
  known = sorted({case[0] for case in CASES})
  if args.only and args.only not in known:
    parser.error(f'--only: {args.only!r} is none of {", ".join(known)}')
  results = {}
  if args.output.exists():
    results = json.loads(args.output.read_text())
  for topology, rows, sizes, row_length, arch in CASES:
    data, fsdp = sizes
    name = f'{topology} data={data} fsdp={fsdp} rows={rows}'
    if row_length != 128:
      name += f' of {row_length}'
    if arch != _BERT:
      name += f', {arch}'
    if args.only not in (None, topology) or name in results:
      continue
    results[name] = compile_case(
      topology, rows, sizes, row_length, arch, args.layers
    )
    args.output.write_text(json.dumps(results, indent=1) + '\n')
    print(name, json.dumps(results[name]), flush=True)


if __name__ == '__main__':
  main()
