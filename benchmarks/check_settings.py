"""Tries every setting of a plan on this machine's devices; no timing.

  python -m benchmarks.check_settings

A setting is one value of one field that chooses what is compiled, or the
precision of JAX's products. Each is tried with a plan of two steps over five
kinds of tasks, which is trained and then predicts its test files. It is `ok`,
or `refused` by an error for users; anything else is `failed`, and exits with 1.
"""

import argparse
from collections.abc import Iterator
import dataclasses
from pathlib import Path
import sys
import tempfile
import traceback
import typing
from typing import NamedTuple

import jax
import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import predict
from bam_jax.experiments import train
from tests.configs import kinds
from tests.kinds import rows

# Groups of fields whose every choice is tried.
_GROUPS = ('model', 'optimizer', 'sampling', 'packing', 'distill', 'train')
_PRECISION = 'jax_default_matmul_precision'
_PRECISIONS = (
  'default',
  'high',
  'highest',
  'bfloat16',
  'tensorfloat32',
  'float32',
)
_DEVICES_OF_A_HALF = max(1, jax.device_count() // 2)

# Fields of numbers and tuples, each with the values that are tried together.
_OTHERS: tuple[dict[str, object], ...] = (
  {'model.num_layers': 1},
  {f'model.dropout_{site}': 0.0 for site in ('embedding', 'attention')},
  {f'model.dropout_{site}': 0.0 for site in ('hidden', 'head')},
  {'optimizer.clip_norm': 0.0},
  {'optimizer.weight_decay': 0.0},
  {'optimizer.warmup': 0.0},
  {'packing.slots': 1},
  {'packing.row_buckets': ()},
  {'packing.row_length': 48},
  {'packing.row_length': 256, 'packing.row_buckets': (8,)},
  {'packing.eval_rows': 1},
  {'train.accumulate': 2},
  {'train.evaluate_every': 1, 'train.checkpoint_every': 1},
  {'train.seeds_at_once': jax.device_count()},
  {'train.seeds_at_once': 2 * jax.device_count()},
  {'train.profile': (0, 1)},
  {'train.prefetch': 1},
  {'mesh.data': 1},
  {'mesh.fsdp': -1, 'mesh.data': 1},
  {'mesh.fsdp': _DEVICES_OF_A_HALF},
  {'mesh.fsdp': 2, 'train.accumulate': 2},
  {'model.dtype': 'bfloat16', 'model.kernels': False},
  {'model.dtype': 'bfloat16', 'model.remat': True},
  {'model.dtype': 'bfloat16', 'packing.row_length': 256},
  {'model.dtype': 'bfloat16', 'packing.enabled': False},
  {'model.dtype': 'bfloat16', 'mesh.fsdp': _DEVICES_OF_A_HALF},
  {'model.dtype': 'bfloat16', 'train.seeds_at_once': 2 * jax.device_count()},
)


class Outcome(NamedTuple):
  """The outcome of a setting: `ok`, `refused` or `failed`, and the error."""

  word: str
  error: str = ''


def settings() -> Iterator[dict[str, object]]:
  """Yields every setting as a dict of changed fields."""
  yield {}
  for group in _GROUPS:
    defaults = getattr(config_lib.Config(), group)
    hints = typing.get_type_hints(type(defaults))
    for field in dataclasses.fields(defaults):
      default, hint = getattr(defaults, field.name), hints[field.name]
      choices = typing.get_args(hint)
      if hint is bool:
        choices = (not default,)
      elif typing.get_origin(hint) is not typing.Literal:
        continue
      for value in choices:
        if value != default:
          yield {f'{group}.{field.name}': value}
  for value in _PRECISIONS:
    yield {_PRECISION: value}
  yield from _OTHERS


def text(setting: dict[str, object]) -> str:
  """Returns a setting as text, such as `model.num_layers=1`."""
  return ' '.join(f'{key}={value}' for key, value in setting.items()) or 'none'


def check(setting: dict[str, object], folder: Path) -> Outcome:
  """Trains and predicts with one setting.

  Args:
    setting: as `settings` yields.
    folder: an empty one, for raw files and the work directory.
  """
  changes = dict(setting)
  before = jax.config.jax_default_matmul_precision
  jax.config.update(_PRECISION, changes.pop(_PRECISION, before))
  try:
    data = folder / 'data'
    data.mkdir()
    rows.write(data)
    config = kinds.get_config()
    config.data.dir = str(data)
    config.variants = ('multi',)
    config.multi.max_steps = 2
    config.train.checkpoint_every = 0
    config.update_from_flattened_dict(changes)
    config.seeds = tuple(range(config.train.seeds_at_once))
    plan = plan_lib.make_plan(
      config_lib.from_config_dict(config), folder / 'work'
    )
    train.run(plan)
    predict.predict(plan, None)
    outputs = folder / 'work' / 'runs' / 'multi-s0' / 'outputs.npz'
    with np.load(outputs) as arrays:
      for name, array in arrays.items():
        if array.dtype.kind == 'f' and not np.isfinite(array).all():
          return Outcome('failed', f'{name} of outputs.npz is not finite')
  except errors.UserError as e:
    return Outcome('refused', str(e))
  except Exception:
    return Outcome('failed', traceback.format_exc())
  finally:
    jax.config.update(_PRECISION, before)
  return Outcome('ok')


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--only', default='', help='settings whose text has this in it'
  )
  args = parser.parse_args()
  device = jax.devices()[0]
  print(f'{jax.device_count()} x {device.device_kind}, jax {jax.__version__}')
  failed = 0
  for setting in settings():
    if args.only not in text(setting):
      continue
    with tempfile.TemporaryDirectory() as folder:
      outcome = check(setting, Path(folder))
    failed += outcome.word == 'failed'
    print(f'{outcome.word}: {text(setting)} {outcome.error}'.rstrip())
    sys.stdout.flush()
  print(f'{failed} failed')
  sys.exit(failed > 0)


if __name__ == '__main__':
  main()
