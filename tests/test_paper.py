"""The paper's own command, from nothing to the report, on this machine.

`python -m bam_jax.main --config=configs/bam.py` and no other flag but those of
several processes: TFDS and the hub lead to servers here, which hold a few rows
a task and a tiny BERT. It needs TensorFlow, PyTorch and some minutes:
`pytest -m fault`.
"""

from collections.abc import Iterator
import importlib.util
import json
import os
from pathlib import Path
import signal
import subprocess
import time

import numpy as np
import pytest

from tests import starting
from tests.data import glue_server
from tests.modeling import hub_server

_MODEL = 'google-bert/bert-large-uncased'
_VARIANTS = {
  'single', 'single_to_single', 'multi', 'multi_to_multi', 'single_to_multi',
}  # fmt: skip
# Nine tasks, alone and alone again, and three models of all of them.
_RUNS = 2 * 9 + 3
_WORDS = (
  '[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'he', 'said', '"', 'cafe',
  'don', "'", 't', '##0', '##1', '##2', *'0123456789',
)  # fmt: skip

pytestmark = [
  pytest.mark.fault,
  pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ('tensorflow', 'torch'))),
    reason='TensorFlow or PyTorch is not installed',
  ),
]


def _write_model(directory: Path) -> None:
  """A random BERT of two layers, with its tokenizer."""
  import transformers

  directory.mkdir()
  (directory / 'vocab.txt').write_text('\n'.join(_WORDS) + '\n')
  config = transformers.BertConfig(
    vocab_size=len(_WORDS),
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=128,
  )
  transformers.BertModel(config).save_pretrained(directory)
  tokenizer = transformers.BertTokenizer(str(directory / 'vocab.txt'))
  tokenizer.save_pretrained(directory)


class World:
  """What the command meets: servers, and a home directory to fetch into.

  Attributes:
    glue: TFDS's files.
    hub: the model.
  """

  def __init__(
    self, root: Path, glue: glue_server.GlueServer, hub: hub_server.HubServer
  ):
    self.glue, self.hub, self._root = glue, hub, root

  def start(
    self, workdir: Path, home: str, devices: int, processes: int = 1
  ) -> list[subprocess.Popen]:
    """Starts the command; its output goes to WORKDIR-NUMBER.log."""
    (self._root / home).mkdir(exist_ok=True)
    environment = os.environ | {
      'HOME': str(self._root / home),
      'HF_ENDPOINT': self.hub.endpoint,
      'JAX_NUM_CPU_DEVICES': str(devices),
    }
    environment |= self.glue.environment
    for name in ('HF_HUB_OFFLINE', 'HF_HOME', 'TFDS_DATA_DIR'):
      environment.pop(name, None)
    return starting.start('configs/bam.py', workdir, [environment] * processes)

  def finish(self, workdir: Path, home: str, *numbers: int) -> None:
    """Runs the command to its end; `numbers` as for `start`."""
    processes = self.start(workdir, home, *numbers)
    try:
      for number, process in enumerate(processes):
        assert process.wait(900) == 0, starting.log(workdir, number).read_text()
    finally:
      starting.kill(processes)


@pytest.fixture(scope='module')
def world(tmp_path_factory) -> Iterator[World]:
  root = tmp_path_factory.mktemp('paper')
  _write_model(root / 'model')
  with (
    glue_server.GlueServer(root / 'glue') as glue,
    hub_server.HubServer({_MODEL: root / 'model'}) as hub,
  ):
    yield World(root, glue, hub)


@pytest.fixture(scope='module')
def eight(world, tmp_path_factory) -> Path:
  """A work directory of one process with eight devices."""
  workdir = tmp_path_factory.mktemp('eight') / 'work'
  world.finish(workdir, 'home', 8)
  return workdir


def _assert_whole(workdir: Path) -> None:
  """Every run has been trained, and all variants are in the report."""
  assert len(list(workdir.glob('runs/*/DONE'))) == _RUNS
  report = json.loads((workdir / 'report.json').read_text())
  assert set(report['variants']) == _VARIANTS
  assert (workdir / 'report.html').is_file()


def test_on_eight_devices(world, eight):
  _assert_whole(eight)
  # Each file once; MRPC's are three.
  assert len(world.glue.asked) == 8 + 3
  assert set(world.glue.asked.values()) == {1}
  fetched = {
    'config.json',
    'model.safetensors',
    'tokenizer.json',
    'tokenizer_config.json',
    'vocab.txt',
  }
  assert set(world.hub.asked) <= fetched
  assert len(world.hub.asked) == len(set(world.hub.asked))
  # The process that downloads has TensorFlow, and trains nothing.
  assert world.glue.notes.read_text() == 'child\n'
  text = starting.log(eight).read_text()
  for noise in ('HTTP Request', 'Load dataset info', 'Traceback'):
    assert noise not in text


def test_on_one_device_nothing_is_downloaded_again(world, eight, tmp_path):
  before = world.glue.asked.copy(), world.hub.asked[:]
  world.finish(tmp_path / 'work', 'home', 1)
  _assert_whole(tmp_path / 'work')
  assert (world.glue.asked, world.hub.asked) == before
  assert world.glue.notes.read_text() == 'child\n'


def _losses(workdir: Path) -> dict[tuple[str, int, str], float]:
  """(run, step, name) -> loss, of every line of every log."""
  return {
    (path.parent.name, line['step'], key): value
    for path in workdir.glob('runs/*/metrics.jsonl')
    for line in map(json.loads, path.read_text().splitlines())
    for key, value in line.items()
    if key.startswith('loss')
  }


def test_on_two_processes_killed_once(world, eight, tmp_path):
  """They download for themselves; the oracle is the plan in one process."""
  workdir = tmp_path / 'work'
  processes = world.start(workdir, 'another home', 4, 2)
  try:
    while len(list(workdir.glob('runs/*/DONE'))) < 3:
      for number, process in enumerate(processes):
        assert process.poll() is None, starting.log(workdir, number).read_text()
      time.sleep(0.1)
    processes[1].send_signal(signal.SIGKILL)
    assert processes[0].wait(300) != 0
  finally:
    starting.kill(processes)
  assert len(list(workdir.glob('runs/*/DONE'))) < _RUNS
  world.finish(workdir, 'another home', 4, 2)
  _assert_whole(workdir)
  ours, theirs = _losses(workdir), _losses(eight)
  assert ours.keys() == theirs.keys()
  for key, value in theirs.items():
    np.testing.assert_allclose(ours[key], value, rtol=1e-5, err_msg=str(key))
