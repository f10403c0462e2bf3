"""Requests that come at the same time, predicted in batches."""

import asyncio
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent import futures
import contextlib
import logging
from typing import NamedTuple

from bam_jax.inference import model as model_lib


class Overloaded(Exception):
  """More is waiting than may."""


class _Request(NamedTuple):
  inputs: Sequence[model_lib.Input]
  said: asyncio.Future[list[model_lib.Result]]


class Batcher:
  """Predicts what is waiting whenever the last batch is done.

  So a request that comes alone waits for no other, and under load batches grow
  up to what the largest program takes.

  Attributes:
    waiting: inputs that were let in and are not answered.
  """

  def __init__(self, model: model_lib.Model, limit: int, character_limit: int):
    """Starts nothing yet.

    Args:
      model: predicts.
      limit: inputs that may wait; a request of more is let in alone.
      character_limit: of their texts, likewise.
    """
    self.waiting = 0
    self._characters = 0
    self._character_limit = character_limit
    self._model = model
    self._limit = limit
    self._requests: asyncio.Queue[_Request] = asyncio.Queue()

  @contextlib.contextmanager
  def admitted(self, count: int, characters: int) -> Iterator[None]:
    """Holds a request's place, from before its texts become tokens.

    Args:
      count: inputs times tasks.
      characters: of their texts, which are no fewer than their tokens.

    Raises:
      Overloaded: there is none.
    """
    if self.waiting and (
      self.waiting + count > self._limit
      or self._characters + characters > self._character_limit
    ):
      raise Overloaded
    self.waiting += count
    self._characters += characters
    try:
      yield
    finally:
      self.waiting -= count
      self._characters -= characters

  async def predict(
    self, inputs: Sequence[model_lib.Input]
  ) -> list[model_lib.Result]:
    """What is said of each input, together with others' that wait."""
    said = asyncio.get_running_loop().create_future()
    self._requests.put_nowait(_Request(inputs, said))
    return await said

  async def run(self) -> None:
    """Predicts until it is cancelled."""
    loop = asyncio.get_running_loop()
    with futures.ThreadPoolExecutor(1, 'predict') as thread:
      while True:
        batch = await self._next()
        inputs = [item for request in batch for item in request.inputs]
        try:
          said = await loop.run_in_executor(thread, self._model.predict, inputs)
        except Exception as e:
          logging.exception('a batch of %d inputs failed', len(inputs))
          for request in batch:
            if not request.said.done():
              request.said.set_exception(e)
          continue
        rest = iter(said)
        for request in batch:
          own = [next(rest) for _ in request.inputs]
          if not request.said.done():  # Its client may have gone.
            request.said.set_result(own)

  async def _next(self) -> list[_Request]:
    """The requests that wait, at least one, up to what a batch takes."""
    batch = [await self._requests.get()]
    tokens = _tokens(batch[0])
    while tokens < self._model.most_tokens and not self._requests.empty():
      batch.append(self._requests.get_nowait())
      tokens += _tokens(batch[-1])
    return batch


def _tokens(request: _Request) -> int:
  return sum(item.num_tokens for item in request.inputs)
