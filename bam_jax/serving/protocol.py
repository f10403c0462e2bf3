"""HTTP protocol with a time limit for a request's head."""

import asyncio

import h11
from uvicorn.protocols.http import h11_impl


class Protocol(h11_impl.H11Protocol):
  """Closes connections that send no complete head of a request in time.

  uvicorn limits only the idle time between two requests, so a client that sends
  half of a head, or nothing at all, could keep its connection.

  Attributes:
    head_seconds: time from the first byte of a request until its head is
      complete. A connection that sends nothing counts as idle.
  """

  head_seconds = 10.0
  _timer: asyncio.TimerHandle | None = None

  def connection_made(self, transport: asyncio.Transport) -> None:
    super().connection_made(transport)
    self._timer = self.loop.call_later(self.timeout_keep_alive, self._close)
    self._has_begun = False

  def data_received(self, data: bytes) -> None:
    super().data_received(data)
    if self.conn.their_state is not h11.IDLE:
      self._stop()
      self._has_begun = False
    elif not self._has_begun:
      self._stop()
      self._has_begun = True
      self._timer = self.loop.call_later(self.head_seconds, self._close)

  def connection_lost(self, exc: Exception | None) -> None:
    self._stop()
    super().connection_lost(exc)

  def _stop(self) -> None:
    if self._timer:
      self._timer.cancel()

  def _close(self) -> None:
    self.transport.close()
