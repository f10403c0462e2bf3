"""A web server on this machine with the archives that TFDS downloads of GLUE.

TFDS has their addresses in its code. In a process whose `PYTHONPATH` begins
with `GlueServer.environment`'s the addresses lead here; nothing else of TFDS is
changed.
"""

import collections
import http.server
import os
from pathlib import Path
import threading
from typing import Self
import zipfile

from bam_jax.tasks import glue
from tests.data import official_files

_MRPC = {
  'msr_paraphrase_train.txt': 'all.txt',
  'msr_paraphrase_test.txt': 'test.tsv',
  'data%2Fmrpc_dev_ids.tsv': 'ids.tsv',
}
_ARCHIVES = {
  'cola': 'CoLA',
  'sst2': 'SST-2',
  'stsb': 'STS-B',
  'qqp': 'QQP',
  'mnli': 'MNLI',
  'qnli': 'QNLIv2',
  'rte': 'RTE',
  'wnli': 'WNLI',
}

# Python runs this when it starts. It also notes which process imports
# TensorFlow: the command, or one that it has started.
_AT_START = """
import importlib.util, multiprocessing, os, sys

def note(module):
  with open(os.environ['GLUE_NOTES'], 'a') as file:
    file.write('child\\n' if multiprocessing.parent_process() else 'command\\n')

def lead(module):
  def here(url):
    return os.environ['GLUE_URL'] + '/' + url.split('/')[-1]
  for config in module.Glue.BUILDER_CONFIGS:
    if config.data_url:
      config.data_url = here(config.data_url)
  for constant in ('_MRPC_DEV_IDS', '_MRPC_TRAIN', '_MRPC_TEST'):
    setattr(module, constant, here(getattr(module, constant)))

class Finder:
  def __init__(self, name, do):
    self.name, self.do = name, do

  def find_spec(self, name, path=None, target=None):
    if name != self.name:
      return None
    sys.meta_path.remove(self)
    try:
      spec = importlib.util.find_spec(name)
    finally:
      sys.meta_path.insert(0, self)
    execute = spec.loader.exec_module
    def exec_module(module):
      execute(module)
      self.do(module)
    spec.loader.exec_module = exec_module
    return spec

sys.meta_path[:0] = [
  Finder('tensorflow', note), Finder('tensorflow_datasets.text.glue', lead)
]
"""


class GlueServer:
  """Serves the nine tasks, a few rows each, as a context manager.

  Attributes:
    asked: name of a file -> how often it was asked for.
    environment: what leads a process's TFDS here.
    notes: a file; a line for each process that has imported TensorFlow,
      `command`, or `child` for one that was started by multiprocessing.
  """

  def __init__(self, folder: Path, tasks: tuple[str, ...] = tuple(glue.TASKS)):
    """Writes the files into an empty folder; serves nothing yet.

    Args:
      folder: is made.
      tasks: others are answered with 404.
    """
    self.asked = collections.Counter()
    glue_server = self
    served = folder / 'served'
    served.mkdir(parents=True)
    for name in tasks:
      task = glue.TASKS[name]
      if name == 'mrpc':
        official_files.write_mrpc_originals(folder)
      splits = [s for s in task.tables if name != 'mrpc' or s == 'test']
      for split in splits:
        official_files.write(task, split, folder)
      if name == 'mrpc':
        for address, file in _MRPC.items():
          (folder / 'MRPC' / file).rename(served / address.split('%2F')[-1])
        continue
      with zipfile.ZipFile(served / f'{_ARCHIVES[name]}.zip', 'w') as archive:
        for split in splits:
          file = task.tables[split].file
          archive.write(folder / file, file)
    start = folder / 'start'
    start.mkdir()
    (start / 'sitecustomize.py').write_text(_AT_START)

    class Handler(http.server.SimpleHTTPRequestHandler):
      def __init__(self, *arguments: object):
        super().__init__(*arguments, directory=str(served))

      def do_GET(self) -> None:
        self.path = '/' + self.path.split('%2F')[-1].split('?')[0].lstrip('/')
        glue_server.asked[self.path[1:]] += 1
        super().do_GET()

      def log_message(self, *unused: object) -> None:
        pass

    self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    self._server.daemon_threads = True
    root = Path(__file__).parents[2]
    self.notes = folder / 'notes'
    self.environment = {
      'GLUE_URL': f'http://127.0.0.1:{self._server.server_port}',
      'GLUE_NOTES': str(self.notes),
      'PYTHONPATH': f'{start}{os.pathsep}{root}',
    }

  def __enter__(self) -> Self:
    self._thread = threading.Thread(
      target=self._server.serve_forever, args=(0.02,)
    )
    self._thread.start()
    return self

  def __exit__(self, *unused_exception: object) -> None:
    self._server.shutdown()
    self._server.server_close()
    self._thread.join()
