"""Compares a training step through a GPU's own kernels with XLA's; no timing.

  python -m benchmarks.check_kernels --size=bert-large --layers=4
  python -m benchmarks.check_kernels --size=bert-large --layers=4 \\
    --row_length 256 512

Random weights, one step of packed rows of random words, the same dropout masks
both ways. In float32 at highest precision printed is the difference of the
losses as a share of the loss, and of each parameter's gradient as a share of
its largest value; of key biases and unused parameters, whose gradient is zero
in theory, in absolute numbers. In bfloat16 the two round differently, so each
is compared with XLA's float32, from which the kernels should be no further than
XLA.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np

from bam_jax.core import losses
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import kernels
from bam_jax.tasks import glue
from bam_jax.tasks import task as task_lib
from bam_jax.training import compilation

_TOKENS, _SLOTS = 4608, 4
_ZERO = 'key/bias'


def make_batch(
  rng: np.random.Generator,
  tasks: task_lib.TaskTable,
  vocab_size: int,
  length: int,
) -> dict[str, np.ndarray]:
  """Makes rows of four segments of one length, with padding between them."""
  rows = _TOKENS // length
  segment = length // _SLOTS - 1  # so that it ends inside of a kernel's tile
  used = segment - 5
  number = np.arange(length) // segment + 1
  place = np.tile(np.arange(length) % segment, (rows, 1))
  real = (place < used) & (number <= _SLOTS)
  shape = (rows, _SLOTS)
  task_id = rng.integers(len(tasks), size=shape)
  target = np.zeros((*shape, tasks.num_outputs), np.float32)
  target[..., 0] = 1.0
  return {
    'input_ids': rng.integers(1, vocab_size, real.shape) * real,
    'token_type_ids': (place > used // 2) * real * 1,
    'positions': place * real,
    'segment_ids': number * real,
    'cls_index': np.tile(np.arange(_SLOTS) * segment, (rows, 1)),
    'task_id': task_id,
    'gold': target,
    'teacher': target,
    'weight': np.ones(shape, np.float32),
  }


def gradients(
  config: family.EncoderConfig, length: int, dtype: str, platform: str
) -> tuple[float, dict[str, np.ndarray]]:
  """Returns the loss of a step, and the gradient of each parameter by path."""
  tasks = task_lib.TaskTable(tuple(glue.TASKS.values()))
  model = heads.MultiTaskModel(
    config,
    num_tasks=len(tasks),
    num_outputs=tasks.num_outputs,
    compute=family.Compute(dtype=jnp.dtype(dtype), platform=platform),
  )
  params = heads.init_params(model, jax.random.key(0))
  batch = make_batch(np.random.default_rng(0), tasks, config.vocab_size, length)

  @functools.partial(
    jax.jit,
    compiler_options=compilation.COMPILER_OPTIONS.get(jax.default_backend()),
  )
  @jax.value_and_grad
  def loss(params):
    logits = model.apply(
      {'params': params},
      batch,
      deterministic=False,
      rngs={'dropout': jax.random.key(1)},
    )
    return losses.multitask_loss(
      logits.slots, batch, tasks.class_mask, tasks.kinds, 1.0
    )[0]

  value, gradient = jax.device_get(loss(params))
  leaves, _ = jax.tree.flatten_with_path(gradient)
  return float(value), {
    '/'.join(key.key for key in path): np.asarray(leaf, np.float64)
    for path, leaf in leaves
  }


def differences(
  found: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> str:
  """Describes the largest difference of a gradient."""
  shares, zeros = {}, 0.0
  for path, value in expected.items():
    difference = np.abs(found[path] - value).max()
    if path.endswith(_ZERO) or not value.any():
      zeros = max(zeros, difference)
    else:
      shares[path] = difference / np.abs(value).max()
  worst = max(shares, key=shares.get)
  return (
    f'gradients of {len(shares)} parameters: at most {shares[worst]:.1e} of'
    f' the largest value ({worst}), median'
    f' {np.median([*shares.values()]):.1e}; zeros {zeros:.1e}'
  )


def check(name: str, config: family.EncoderConfig, length: int) -> None:
  """Prints how far the kernels are from XLA in rows of a length."""
  own = kernels.find_platform(jax.devices()[0])
  with jax.default_matmul_precision('highest'):
    loss, expected = gradients(config, length, 'float32', platform='')
    found_loss, found = gradients(config, length, 'float32', own)
  print(
    f'{jax.devices()[0].device_kind}, {name}, {config.num_layers} layers,'
    f' rows of {length}'
  )
  print(f'float32: losses differ by {abs(found_loss / loss - 1):.1e}')
  print(f'float32, kernels: {differences(found, expected)}')
  if jax.default_backend() == 'cpu':
    return  # which has no such products
  for way, platform in (('kernels', own), ('XLA', '')):
    found_loss, found = gradients(config, length, 'bfloat16', platform)
    print(f'bfloat16, {way}: loss differs by {abs(found_loss / loss - 1):.1e}')
    print(f'bfloat16, {way}: {differences(found, expected)}')


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--size', required=True, choices=families.presets())
  parser.add_argument('--layers', type=int, help='fewer than the size has')
  parser.add_argument(
    '--row_length', type=int, nargs='+', default=[128], help='tokens a row'
  )
  args = parser.parse_args()
  config = family.EncoderConfig(30522, **families.presets()[args.size])
  if args.layers:
    keep_layers = families.FAMILIES[config.family].keep_layers
    config = keep_layers(config, range(args.layers))
  for length in args.row_length:
    check(args.size, config, length)


if __name__ == '__main__':
  main()
