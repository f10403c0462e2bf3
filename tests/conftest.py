"""Eight CPU devices, strict promotion, and no network, for every test.

Processes that tests start inherit the environment, and have one device.
"""

from collections.abc import Iterator
import functools
import gc
import logging
import os
import socket
import tempfile

os.environ.update(
  HF_HUB_OFFLINE='1',
  JAX_DEFAULT_MATMUL_PRECISION='highest',
  # The tests compile much and compute little. XLA's older emitters of loops
  # compile a training step in less than half the time.
  JAX_DISABLE_MOST_OPTIMIZATIONS='1',
  JAX_PLATFORMS='cpu',
  XLA_FLAGS='--xla_cpu_use_fusion_emitters=false',
)

import jax
import pytest

from bam_jax.reporting import figures
from tests.storage import object_server

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
# Plans of one configuration that are made anew have the same programs, also in
# pytest-xdist's other workers, which inherit the folder.
if 'PYTEST_XDIST_WORKER' not in os.environ:
  _compiled = tempfile.TemporaryDirectory()
  os.environ['TESTS_COMPILED'] = _compiled.name
jax.config.update('jax_compilation_cache_dir', os.environ['TESTS_COMPILED'])
# With a limit, the files are locked while they are written.
jax.config.update('jax_compilation_cache_max_size', 1 << 30)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


@pytest.fixture(scope='module', autouse=True)
def frozen_heap() -> Iterator[None]:
  """Later garbage collections pass over what is left of a module.

  JAX's caches grow with each test, and to search them took seconds each time.
  """
  yield
  gc.collect()
  gc.freeze()


@pytest.fixture(scope='session', autouse=True)
def drawn_once() -> Iterator[None]:
  """Plots with the same texts share a drawing; each took a second.

  `figures._draw.__wrapped__` draws anew.
  """
  draw, drawings = figures._draw, {}

  @functools.wraps(draw)
  def draw_once(plot):
    texts = [(p.title, p.what, *p.rows) for p in plot.panels]
    key = plot.name, str(texts), *plot.legend
    if key not in drawings:
      drawings[key] = draw(plot)
    return drawings[key]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(figures, '_draw', draw_once)
    yield


@pytest.fixture
def restored_logs() -> Iterator[None]:
  """Undoes what a command does to the logs, as if it had its own process."""
  root = logging.getLogger()
  levels = {name: logging.getLogger(name).level for name in ('', 'absl')}
  handlers = [(h, h.formatter, h.filters[:]) for h in root.handlers]
  yield
  root.handlers[:] = [handler for handler, _, _ in handlers]
  for handler, formatter, filters in handlers:
    handler.setFormatter(formatter)
    handler.filters[:] = filters
  for name, level in levels.items():
    logging.getLogger(name).setLevel(level)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
  """A test that opens a connection beyond this machine fails."""
  connect = socket.socket.connect

  def guarded(self, address):
    if self.family != socket.AF_UNIX and address[0] not in (
        '127.0.0.1', '::1', 'localhost',
    ):  # fmt: skip
      raise AssertionError(f'a test tried to reach {address}')
    return connect(self, address)

  monkeypatch.setattr(socket.socket, 'connect', guarded)


@pytest.fixture(scope='session')
def s3_server(tmp_path_factory) -> Iterator[object_server.ObjectServer]:
  with object_server.ObjectServer() as server:
    yield server


@pytest.fixture
def s3(s3_server, monkeypatch, request) -> str:
  """The URL of an empty place in a store, which the environment leads to."""
  for name, value in s3_server.environment.items():
    monkeypatch.setenv(name, value)
  return f's3://bucket/{request.node.name}'
