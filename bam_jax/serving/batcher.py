"""Collects the inputs of concurrent requests in batches.

One thread predicts the batches, one after the other.
"""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent import futures
import contextlib
import logging
from typing import NamedTuple

from bam_jax.inference import model as model_lib


class Overloaded(Exception):
  """A request is refused because too many inputs are already waiting."""


class _Request(NamedTuple):
  inputs: Sequence[model_lib.Input]
  results: asyncio.Future[list[model_lib.Result]]

  @property
  def num_tokens(self) -> int:
    return sum(item.num_tokens for item in self.inputs)


class Batcher:
  """Predicts waiting inputs together as soon as the previous batch is done.

  If no other request is waiting, a request is predicted at once. Under load,
  batches grow up to the largest size for which a program is compiled.

  Attributes:
    waiting: number of accepted inputs that have no result yet.
  """

  def __init__(self, model: model_lib.Model, limit: int, character_limit: int):
    """Initializes the batcher; predictions start when `run` is called.

    At most `limit` inputs and `character_limit` characters may wait. A request
    that exceeds these limits by itself is accepted if no other request waits.
    """
    self.waiting = 0
    self._characters = 0
    self._character_limit = character_limit
    self._model = model
    self._limit = limit
    self._requests: asyncio.Queue[_Request] = asyncio.Queue()

  @contextlib.contextmanager
  def admitted(self, count: int, characters: int) -> Iterator[None]:
    """Context manager that reserves room for a request in the queue.

    Enter it before the texts are tokenised.

    Args:
      count: number of predictions: each input counts once per task.
      characters: number of characters in the texts of these predictions; the
        number of tokens is not known yet.

    Raises:
      Overloaded: too many inputs are waiting.
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
    """Predicts inputs, possibly in one batch with inputs of other requests."""
    results = asyncio.get_running_loop().create_future()
    self._requests.put_nowait(_Request(inputs, results))
    return await results

  async def run(self) -> None:
    """Predicts batch after batch until this task is cancelled."""
    loop = asyncio.get_running_loop()
    with futures.ThreadPoolExecutor(1, 'predict') as thread:
      while True:
        batch = await self._next_batch()
        inputs = [item for request in batch for item in request.inputs]
        try:
          found = await loop.run_in_executor(
            thread, self._model.predict, inputs
          )
        except Exception as e:
          logging.exception('a batch of %d inputs failed', len(inputs))
          found = e
        begin = 0
        for inputs, results in batch:
          end = begin + len(inputs)
          if results.done():  # The client has disconnected.
            pass
          elif isinstance(found, Exception):
            results.set_exception(found)
          else:
            results.set_result(found[begin:end])
          begin = end

  async def _next_batch(self) -> list[_Request]:
    """Waits for a request; adds waiting requests until the batch is full.

    The last request may make the batch too large; the model then splits it.
    """
    batch = [await self._requests.get()]
    tokens = batch[0].num_tokens
    while tokens < self._model.most_tokens and not self._requests.empty():
      batch.append(self._requests.get_nowait())
      tokens += batch[-1].num_tokens
    return batch
