"""A server on the loopback, in a thread of the test's own process."""

from collections.abc import Mapping, Sequence
from concurrent import futures
import contextlib
import http.client
import json
import threading
from typing import NamedTuple, Self

import uvicorn

from bam_jax.inference import model as model_lib
from bam_jax.serving import app
from bam_jax.serving import server


class Answer(NamedTuple):
  status: int
  headers: Mapping[str, str]
  body: bytes

  @property
  def json(self) -> dict:
    return json.loads(self.body)


class Gate:
  """A model that predicts while the gate is open, and tells the batches."""

  def __init__(self, model: model_lib.Model):
    self.open = threading.Event()
    self.begun = threading.Semaphore(0)
    self.encoded = threading.Semaphore(0)
    self.batches: list[int] = []
    self._model = model

  def __getattr__(self, name: str) -> object:
    return getattr(self._model, name)

  def encode(self, task: str, texts: object) -> list[model_lib.Input]:
    inputs = self._model.encode(task, texts)
    self.encoded.release()
    return inputs

  def predict(
    self, inputs: Sequence[model_lib.Input]
  ) -> list[model_lib.Result]:
    self.batches.append(len(inputs))
    self.begun.release()
    assert self.open.wait(20)
    return self._model.predict(inputs)


class Served:
  """Serves a model as a context manager."""

  def __init__(self, model: model_lib.Model, **limits: float):
    self._listener = server.bind('127.0.0.1', 0)
    self._listener.listen()
    self.port = self._listener.getsockname()[1]
    self._server = uvicorn.Server(
      server.config_of(model, 'tiny <plan>', app.Limits(**limits))
    )
    self._thread = threading.Thread(
      target=self._server.run, args=([self._listener],)
    )
    self._pool = futures.ThreadPoolExecutor(16)

  def __enter__(self) -> Self:
    self._thread.start()
    return self

  def __exit__(self, *unused_exception: object) -> None:
    self.stop()
    self._thread.join(30)
    assert not self._thread.is_alive()
    self._pool.shutdown()

  def stop(self) -> None:
    """As a signal does."""
    self._server.should_exit = True

  def ask(
    self, path: str, body: object = None, method: str | None = None
  ) -> Answer:
    """GET, or POST of bytes or of what becomes JSON."""
    if body is not None and not isinstance(body, bytes):
      body = json.dumps(body).encode()
    with contextlib.closing(
      http.client.HTTPConnection('127.0.0.1', self.port, timeout=20)
    ) as connection:
      connection.request(
        method or ('GET' if body is None else 'POST'), path, body
      )
      response = connection.getresponse()
      return Answer(response.status, dict(response.headers), response.read())

  def predict(self, inputs: object, task: str | None = None) -> Answer:
    body = {'inputs': inputs} | ({'task': task} if task else {})
    return self.ask('/v1/predict', body)

  def later(self, inputs: object) -> futures.Future[Answer]:
    """As `predict`, meanwhile."""
    return self._pool.submit(self.predict, inputs)
