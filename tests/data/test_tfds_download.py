"""TFDS's own builders download, from a web server on this machine.

They need TensorFlow, and seconds to import it: `pytest -m fault`.
"""

import importlib.util
import multiprocessing
from pathlib import Path
import subprocess
import sys
import threading

import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import sources
from bam_jax.data import tfds_source
from bam_jax.tasks import glue
from tests.data import glue_server

pytestmark = [
  pytest.mark.fault,
  pytest.mark.skipif(
    importlib.util.find_spec('tensorflow') is None,
    reason='TensorFlow is not installed',
  ),
]


@pytest.fixture
def server(tmp_path, monkeypatch):
  with glue_server.GlueServer(tmp_path / 'glue', ('mrpc', 'rte')) as running:
    for name, value in running.environment.items():
      monkeypatch.setenv(name, value)
    yield running


def _data(tmp_path: Path) -> config_lib.DataConfig:
  return config_lib.DataConfig(source='tfds', tfds_dir=str(tmp_path / 'a b'))


def _download(tmp_path: Path, *tasks: str) -> None:
  names = [f'glue/{task}' for task in tasks]
  for _ in tfds_source.download(names, _data(tmp_path).tfds_dir):
    pass


def _assert_same_rows(tmp_path: Path, task: str) -> None:
  """The oracle is our reader of the official file, where there is one."""
  official = config_lib.DataConfig(source='tsv', dir=str(tmp_path / 'glue'))
  for split in ('train', 'dev', 'test'):
    rows = list(sources.read(glue.TASKS[task], split, _data(tmp_path)))
    assert rows == list(sources.read(glue.TASKS[task], split, official))


def test_what_is_missing_is_downloaded_once(server, tmp_path):
  for _ in range(2):
    _download(tmp_path, 'rte', 'mrpc')
  assert (
    tfds_source.missing(
      [glue.TASKS['rte'], glue.TASKS['mrpc']], _data(tmp_path)
    )
    == []
  )
  _assert_same_rows(tmp_path, 'rte')
  assert set(server.asked.values()) == {1}
  assert 'tensorflow' not in sys.modules


def test_two_commands_at_once(server, tmp_path):
  threads = [
    threading.Thread(target=_download, args=(tmp_path, 'rte')) for _ in '12'
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  _assert_same_rows(tmp_path, 'rte')
  assert server.asked == {'RTE.zip': 1}


def test_a_file_that_the_server_lacks(server, tmp_path):
  with pytest.raises(errors.UserError) as caught:
    _download(tmp_path, 'rte', 'cola')
  message = str(caught.value)
  assert message.startswith('config.data.source=tfds: glue/cola cannot be')
  assert 'CoLA.zip. HTTP code: 404' in message
  # What was finished stays.
  _assert_same_rows(tmp_path, 'rte')


def test_who_stops_leaves_no_process(server, tmp_path):
  download = tfds_source.download(['glue/rte'], _data(tmp_path).tfds_dir)
  next(download)
  (process,) = multiprocessing.active_children()
  download.close()
  assert not process.is_alive()
  _download(tmp_path, 'rte')
  _assert_same_rows(tmp_path, 'rte')


def test_the_printed_command(server, tmp_path, monkeypatch):
  find_spec = importlib.util.find_spec
  with monkeypatch.context() as patch:
    patch.setattr(
      importlib.util,
      'find_spec',
      lambda name: None if name == 'tensorflow' else find_spec(name),
    )
    with pytest.raises(errors.UserError) as caught:
      tfds_source.check([glue.TASKS['rte']], _data(tmp_path))
  command = str(caught.value).split('; run: ')[1]
  # All that it installs is here.
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  subprocess.run(command, shell=True, check=True)
  _assert_same_rows(tmp_path, 'rte')
