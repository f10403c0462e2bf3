"""Plans of tiny models that share their compiled programs."""

from collections.abc import Callable, Iterator
from pathlib import Path
import weakref

import pytest

from bam_jax import config as config_lib
from bam_jax.estimate import costs
from bam_jax.experiments import plan as plan_lib
from bam_jax.training import loop
from bam_jax.training import setup as setup_lib
from tests.configs import tiny
from tests.experiments import commands


@pytest.fixture(scope='session', autouse=True)
def quick() -> Iterator[None]:
  """Draws the initial weights of a seed once per setup; times single steps."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(costs, '_SECONDS', 0.0)
    drawn = weakref.WeakKeyDictionary()
    draw = setup_lib.Setup.initial_params

    def draw_once(setup, seed):
      params = drawn.setdefault(setup, {})
      if seed not in params:
        params[seed] = draw(setup, seed)
      return params[seed]

    patch.setattr(setup_lib.Setup, 'initial_params', draw_once)
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
