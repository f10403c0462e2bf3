"""Object stores and what they refuse, by moto's S3 server."""

import importlib.util
import os
from pathlib import Path
import subprocess
import sys

import pytest

from bam_jax import errors
from bam_jax.runtime import preemption
from bam_jax.storage import mirror
from bam_jax.storage import store_lock
from bam_jax.storage import stores
from tests.storage import object_server

_ROOT = Path(__file__).parents[2]
_GOOGLE = """
import socket, sys
from gcp_storage_emulator.server import create_server
with socket.socket() as free:
  free.bind(('127.0.0.1', 0))
  port = free.getsockname()[1]
server = create_server(
  '127.0.0.1', port, in_memory=True, default_bucket='bucket'
)
print(port, flush=True)
server.run()
"""


@pytest.fixture(scope='module')
def google_port():
  """Of an emulator of Google Cloud Storage."""
  process = subprocess.Popen(
    [sys.executable, '-c', _GOOGLE],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  yield int(process.stdout.readline())
  process.kill()
  process.wait()
  process.stdout.close()


@pytest.fixture
def gs(google_port, monkeypatch, request) -> str:
  """The URL of an empty place there."""
  host = f'http://127.0.0.1:{google_port}'
  monkeypatch.setenv('STORAGE_EMULATOR_HOST', host)
  # It would ask another service, which is not emulated, for the bucket's kind.
  monkeypatch.setenv('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')
  # Nor is this a machine of Google's, which would know who it is.
  monkeypatch.setenv('NO_GCE_CHECK', 'true')
  return f'gs://bucket/{request.node.name}'


def test_objects_by_name_of_google(gs, tmp_path):
  _use(gs, tmp_path)


def test_a_mirror_at_google(gs, tmp_path):
  preemption_signal, store = preemption.Signal(), stores.Store(gs)
  first, second = tmp_path / 'first', tmp_path / 'second'
  with store_lock.StoreLock(store, preemption_signal) as held:
    with mirror.Mirror(store, held, first, preemption_signal):
      (first / 'report.md').write_text('told')
    with mirror.Mirror(store, held, second, preemption_signal):
      assert (second / 'report.md').read_text() == 'told'


def test_objects_by_name(s3, tmp_path):
  _use(s3, tmp_path)
  # The emulator knows no such condition.
  store = stores.Store(s3)
  assert store.create('c', b'3') is False
  assert store.create('e', b'3') is True
  assert (store.read('c'), store.read('e')) == (b'2', b'3')


def _use(url, tmp_path):
  store = stores.Store(f'{url}/')
  assert store.read('a/b') is None
  assert store.version('a/b') is None
  assert store.names('') == []
  store.write('a/b', b'1')
  assert store.create('c', b'2') is True
  assert store.read('a/b') == b'1'
  assert sorted(store.names('')) == ['a/b', 'c']
  assert store.names('a') == ['a/b']
  before = store.version('a/b')
  store.upload({'a/b': _file(tmp_path, b'3'), 'd e': _file(tmp_path, b'')})
  assert store.version('a/b') != before
  store.download({'a/b': tmp_path / 'x' / 'b', 'd e': tmp_path / 'y'})
  assert (tmp_path / 'x' / 'b').read_bytes() == b'3'
  assert (tmp_path / 'y').read_bytes() == b''
  store.delete(['a/b', 'none', 'd e'])
  assert store.names('') == ['c']


def _file(folder, data):
  path = folder / f'{len(data)} bytes'
  path.write_bytes(data)
  return path


@pytest.mark.parametrize('url', ['hdfs://a/b', 's3://', 'file:///tmp'])
def test_other_places_are_refused(url):
  with pytest.raises(errors.UserError, match='is neither s3://BUCKET'):
    stores.Store(url)


@pytest.mark.parametrize(
  ('url', 'message'),
  [
    ('s3://b/c', r"needs the package s3fs; pip install 'bam-jax\[s3\]'"),
    ('gs://b/c', r"needs the package gcsfs; pip install 'bam-jax\[gcs\]'"),
  ],
)
def test_a_missing_package_is_told_with_its_extra(monkeypatch, url, message):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.UserError, match=message):
    stores.Store(url)


def test_a_missing_bucket_is_told(s3):
  with pytest.raises(
    errors.UserError, match=r's3://nowhere/x: .*does not exist'
  ):
    stores.Store('s3://nowhere/x').write('a', b'')


def test_a_denied_permission_ends_a_command_in_one_line(tmp_path):
  # From the call after the bucket's on, moto asks for permission.
  with object_server.ObjectServer(INITIAL_NO_AUTH_ACTION_COUNT='1') as server:
    done = subprocess.run(
      [
        sys.executable,
        '-m',
        'bam_jax.main',
        '--config=tests/configs/tiny.py',
        '--workdir=s3://bucket/x',
        f'--scratch={tmp_path}/scratch',
      ],
      cwd=_ROOT,
      env=os.environ | server.environment,
      capture_output=True,
      text=True,
      check=False,
    )
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert line.startswith('bam_jax: s3://bucket/x: PermissionError: ')
  assert not (tmp_path / 'scratch').exists()
