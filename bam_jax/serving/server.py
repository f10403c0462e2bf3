"""Binds the server's socket, and serves until a preemption signal arrives."""

import asyncio
import contextlib
import logging
import socket

import h11
import uvicorn
from uvicorn.protocols.http import h11_impl

from bam_jax import errors
from bam_jax.inference import model as model_lib
from bam_jax.runtime import preemption
from bam_jax.serving import app

# Seconds for which accepted requests are still answered after a signal.
_LAST = 30
# Seconds until an idle connection is closed. Proxies close idle connections
# earlier, so they don't send a request into a connection that is being closed.
_IDLE = 75


class Protocol(h11_impl.H11Protocol):
  """Closes connections that don't send the complete head of a request in time.

  uvicorn limits only the idle time between two requests. Without this class, a
  client that sends half of a head, or nothing at all, could keep its connection
  forever.

  Attributes:
    head_seconds: most seconds from the first byte of a request until the head
      of the request is complete. A connection that has sent nothing is closed
      like an idle connection.
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


def bind(host: str, port: int) -> socket.socket:
  """Binds the server's address and returns the socket.

  Call it before the models are loaded, so that a wrong address is reported
  early. Port 0 means any free port.

  Raises:
    errors.UserError: the address is not available.
  """
  with contextlib.ExitStack() as stack:
    try:
      family, kind, number, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
      )[0]
      listener = stack.enter_context(socket.socket(family, kind, number))
      listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      listener.bind(address)
    except (OSError, OverflowError) as e:
      raise errors.UserError(
        f'--host={host} --port={port}: cannot be bound'
        f' ({getattr(e, "strerror", None) or e}); choose another'
      ) from None
    stack.pop_all()
  return listener


def config_of(
  model: model_lib.Model, name: str, limits: app.Limits
) -> uvicorn.Config:
  """Returns the uvicorn configuration for a compiled model.

  The page of the application shows `name`.
  """

  class Limited(Protocol):
    head_seconds = limits.seconds

  return uvicorn.Config(
    app.make(model, name, limits),
    http=Limited,
    ws='none',
    log_config=None,
    access_log=False,
    proxy_headers=False,
    server_header=False,
    limit_concurrency=limits.connections,
    timeout_keep_alive=_IDLE,
    timeout_graceful_shutdown=_LAST,
  )


def serve(
  model: model_lib.Model,
  name: str,
  listener: socket.socket,
  preemption_signal: preemption.Signal,
) -> None:
  """Serves a compiled model until a preemption signal arrives.

  Requests that are waiting when the signal arrives are still answered. While
  the server runs, uvicorn handles the signals. `listener` is the socket from
  `bind`.
  """
  server = uvicorn.Server(config_of(model, name, app.Limits()))
  logging.getLogger('uvicorn').setLevel(logging.WARNING)
  # By itself, uvicorn handles only SIGTERM and SIGINT, and raises them again
  # when it ends.
  with preemption_signal.handled_by(server.handle_exit):
    # From here on, connections are accepted and wait for the server.
    listener.listen()
    host, port = listener.getsockname()[:2]
    shown = f'[{host}]' if ':' in host else host
    logging.info('%s is served at http://%s:%d', name, shown, port)
    server.run([listener])
  logging.info('stopped')
