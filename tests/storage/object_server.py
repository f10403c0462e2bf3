"""moto's S3 server on this machine, as a process of its own."""

import os
import signal
import subprocess
import sys
from typing import Self

_SERVER = """
import logging, os, sys, threading
import boto3
from moto.server import ThreadedMotoServer
logging.disable()
server = ThreadedMotoServer('127.0.0.1', int(sys.argv[1]), verbose=False)
server.start()
host, port = server.get_host_and_port()
os.environ['AWS_ENDPOINT_URL'] = f'http://{host}:{port}'
boto3.client('s3').create_bucket(Bucket='bucket')
print(port, flush=True)
threading.Event().wait()
"""


class ObjectServer:
  """An S3 server with one bucket, `bucket`, as a context manager.

  Attributes:
    environment: what leads S3's clients there.
  """

  def __init__(self, **settings: str):
    """Starts nothing yet; `settings` are moto's, in capital letters."""
    self._settings = settings
    self._port = 0
    self.environment = {
      'AWS_ACCESS_KEY_ID': 'someone',
      'AWS_SECRET_ACCESS_KEY': 'secret',
      'AWS_DEFAULT_REGION': 'us-east-1',
      # By default a server that is gone is tried for ten seconds.
      'AWS_MAX_ATTEMPTS': '1',
    }

  def __enter__(self) -> Self:
    self.start()
    return self

  def __exit__(self, *unused_exception: object) -> None:
    self.stop()

  def start(self) -> None:
    """Starts it, empty; again at the port that it had before."""
    self._process = subprocess.Popen(
      [sys.executable, '-c', _SERVER, str(self._port)],
      env=os.environ | self.environment | self._settings,
      stdout=subprocess.PIPE,
      text=True,
    )
    self._port = int(self._process.stdout.readline())
    self.environment['AWS_ENDPOINT_URL'] = f'http://127.0.0.1:{self._port}'

  def stop(self) -> None:
    self._process.send_signal(signal.SIGKILL)
    self._process.wait()
    self._process.stdout.close()
