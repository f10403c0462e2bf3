"""Plans of tiny models that share their compiled programs."""

from collections.abc import Callable, Iterator
import functools
from pathlib import Path

import pytest

from bam_jax import config as config_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.training import loop
from bam_jax.training import setup as setup_lib
from tests.configs import tiny
from tests.experiments import commands


@pytest.fixture(scope='session', autouse=True)
def drawn_once() -> Iterator[None]:
  """Draws the initial weights of each seed once per setup, not once per run."""
  with pytest.MonkeyPatch.context() as patch:
    draw = functools.cache(setup_lib.Setup.initial_params)
    patch.setattr(setup_lib.Setup, 'initial_params', draw)
    yield


@pytest.fixture(scope='session')
def tiny_plan() -> Callable[..., plan_lib.Plan]:
  """Work directory, own variants and changed fields -> a plan."""
  setups: dict[int, setup_lib.Setup] = {}  # by number of devices

  def make(workdir: Path, own=None, **changes) -> plan_lib.Plan:
    config = tiny.get_config()
    for name, fields in (own or {}).items():
      config.custom_variants[name] = config_lib.custom_variant(**fields)
    devices = changes.setdefault('mesh.data', 2)
    config.update_from_flattened_dict({
      'single.max_steps': 4,
      'multi.max_steps': 4,
      'train.checkpoint_every': 0,
      **changes,
    })  # fmt: skip
    plan = plan_lib.make_plan(
      config_lib.from_config_dict(config),
      workdir,
      setup=setups.get(devices),
    )
    setups[devices] = plan.setup
    return plan

  return make


@pytest.fixture(scope='session')
def undisturbed(tmp_path_factory) -> Path:
  """The work directory of a plan that ran as a process of its own."""
  workdir = tmp_path_factory.mktemp('undisturbed') / 'work'
  commands.ends_with(commands.start(workdir, workdir.parent), 0)
  return workdir


@pytest.fixture
def trained(monkeypatch) -> list[str]:
  """Names of the runs that are trained while a test runs."""
  names = []
  train = loop.train

  def recorded(group, *arguments):
    names.extend(spec.name for spec in group)
    return train(group, *arguments)

  monkeypatch.setattr(loop, 'train', recorded)
  return names
