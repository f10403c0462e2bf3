"""Eight CPU devices, strict promotion, and no network, for every test."""

from collections.abc import Iterator
import os
import socket

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['HF_HUB_OFFLINE'] = '1'

import chex
import jax
import pytest

from tests.storage import object_server

chex.set_n_cpu_devices(8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')
# The tests compile much and compute little.
jax.config.update('jax_disable_most_optimizations', True)


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
