"""A plan that is stopped at random checks, many times, in this process.

Oracle: the same plan left undisturbed, file by file.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import train
from bam_jax.runtime import preemption
from benchmarks import stops

_CONFIG = Path(stops.__file__).parent / 'configs' / 'stops.py'


class _Random(preemption.Signal):
  """Gives a signal at a random one of the next checks."""

  def __init__(self, rng: np.random.Generator, most: int):
    super().__init__()
    self._left = int(rng.integers(1, most))

  def check(self) -> None:
    self._left -= 1
    if self._left <= 0:
      self.trigger()
    super().check()


class _Counted(preemption.Signal):
  """Counts the checks of a plan that nothing stops."""

  count = 0

  def check(self) -> None:
    self.count += 1
    super().check()


@pytest.fixture(scope='module')
def config():
  spec = importlib.util.spec_from_file_location('stops', _CONFIG)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.variants = ('multi',)
  config.model.num_layers = 1
  config.mesh.data = 1
  return config_lib.from_config_dict(config)


@pytest.fixture(scope='module')
def undisturbed(config, tmp_path_factory):
  """The finished plan, its plan, and how many checks it made."""
  preemption_signal = _Counted()
  workdir = tmp_path_factory.mktemp('stops') / 'undisturbed'
  plan = plan_lib.make_plan(config, workdir, preemption_signal)
  train.run(plan)
  return plan, preemption_signal.count


@pytest.mark.parametrize(
  'seed', [0, *(pytest.param(s, marks=pytest.mark.fault) for s in (1, 2, 3))]
)
def test_a_plan_stopped_at_random_ends_bit_equal(
  undisturbed, config, tmp_path, seed
):
  """Before steps and within evaluations, at steps that are saved and others."""
  whole, count = undisturbed
  rng, stopped = np.random.default_rng(seed), 0
  for _ in range(100):
    plan = plan_lib.make_plan(
      config, tmp_path, _Random(rng, count // 3), setup=whole.setup
    )
    try:
      train.run(plan)
      break
    except preemption.Preempted:
      stopped += 1
  assert stopped > 3, stopped
  assert stops.differences(tmp_path, whole.workspace.root) == ()
