"""The server's HTTP routes: predictions, tasks, health, and a web page."""

import asyncio
from collections.abc import AsyncIterator, Sequence
import contextlib
import dataclasses
from pathlib import Path

from starlette import applications
from starlette import concurrency
from starlette import exceptions
from starlette import requests as http
from starlette import responses
from starlette import routing

from bam_jax import errors
from bam_jax.data import unlabelled
from bam_jax.inference import model as model_lib
from bam_jax.serving import batcher as batcher_lib
from bam_jax.serving import requests

_PAGE = Path(__file__).with_name('page.html')
_PAGE_HEADERS = {
  'Content-Security-Policy': (
    "default-src 'none'; style-src 'unsafe-inline'; script-src"
    " 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
  ),
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
}


@dataclasses.dataclass(frozen=True)
class Limits:
  """Upper limits for one request, and for all waiting requests together.

  Attributes:
    body: bytes in the body of a request.
    seconds: time limit for receiving the headers of a request; the same limit
      applies separately to its body.
    inputs: inputs per request.
    characters: characters in all texts of one input together.
    waiting: waiting predictions; each input counts once per task.
    waiting_characters: characters in all waiting texts together.
    connections: simultaneous connections; a request on a further connection
      gets status 503.
  """

  body: int = 1 << 20
  seconds: float = 10.0
  inputs: int = 64
  characters: int = 100_000
  waiting: int = 1024
  waiting_characters: int = 4_000_000
  connections: int = 512


def make(
  model: model_lib.Model, name: str, limits: Limits
) -> applications.Starlette:
  """Makes the web application for a compiled model; the page shows `name`."""
  batcher = batcher_lib.Batcher(
    model, limits.waiting, limits.waiting_characters
  )

  @contextlib.asynccontextmanager
  async def lifespan(_: applications.Starlette) -> AsyncIterator[None]:
    running = asyncio.create_task(batcher.run())
    yield
    running.cancel()

  async def predict(request: http.Request) -> responses.Response:
    asked = requests.parse(
      await _body(request, limits),
      model.tasks,
      limits.inputs,
      limits.characters,
    )
    read = [
      (task, texts)
      for by_task in asked
      for task, texts in by_task.items()
      if isinstance(texts, tuple)
    ]
    characters = sum(len(text) for _, texts in read for text in texts)
    with batcher.admitted(len(read), characters):
      # Tokenises in a thread, so that other requests are served meanwhile.
      inputs = await concurrency.run_in_threadpool(_encode, model, read)
      results = iter(await batcher.predict(inputs))
    predictions = [
      {
        task: next(results).as_json()
        if isinstance(texts, tuple)
        else model_lib.Result(None, error=str(texts)).as_json()
        for task, texts in by_task.items()
      }
      for by_task in asked
    ]
    return responses.JSONResponse({'predictions': predictions})

  async def tasks(_: http.Request) -> responses.Response:
    described = [
      {
        'name': task.name,
        'kind': task.kind.name,
        'labels': task.labels,
        'scale': task.scale if task.kind.has_scale else None,
        'fields': task.kind.input_names(task),
      }
      for task in model.tasks.values()
    ]
    return responses.JSONResponse({'name': name, 'tasks': described})

  async def health(_: http.Request) -> responses.Response:
    return responses.JSONResponse({'status': 'ok', 'waiting': batcher.waiting})

  async def page(_: http.Request) -> responses.Response:
    return responses.FileResponse(_PAGE, headers=_PAGE_HEADERS)

  return applications.Starlette(
    routes=[
      routing.Route('/', page),
      routing.Route('/healthz', health),
      routing.Route('/v1/tasks', tasks),
      routing.Route('/v1/predict', predict, methods=['POST']),
    ],
    exception_handlers=dict.fromkeys(_HANDLED, _on_error),
    lifespan=lifespan,
  )


async def _body(request: http.Request, limits: Limits) -> bytes:
  """Reads a request's body; raises if it is too long or too slow."""
  body = bytearray()
  try:
    async with asyncio.timeout(limits.seconds):
      async for part in request.stream():
        body += part
        if len(body) > limits.body:
          raise exceptions.HTTPException(
            413, f'the body is over {limits.body} bytes; send fewer inputs'
          )
  except TimeoutError:
    raise exceptions.HTTPException(
      408, f'the body took over {limits.seconds:g} s; send it again'
    ) from None
  return bytes(body)


def _encode(
  model: model_lib.Model, read: Sequence[tuple[str, unlabelled.Texts]]
) -> list[model_lib.Input]:
  """Tokenises (task, texts) pairs; returns the inputs in the same order."""
  by_task: dict[str, list[unlabelled.Texts]] = {}
  for task, texts in read:
    by_task.setdefault(task, []).append(texts)
  encoded = {
    task: iter(model.encode(task, own)) for task, own in by_task.items()
  }
  return [next(encoded[task]) for task, _ in read]


_HANDLED = (
  errors.UserError,
  batcher_lib.Overloaded,
  exceptions.HTTPException,
  http.ClientDisconnect,
  Exception,
)


async def _on_error(_: http.Request, error: Exception) -> responses.Response:
  """Converts an error to a response: a status and `{"error": MESSAGE}`."""
  headers = {}
  match error:
    case errors.UserError():
      status, message = 400, str(error)
    case batcher_lib.Overloaded():
      status, message = 503, 'too many inputs are waiting; try again later'
      headers['Retry-After'] = '1'
    case exceptions.HTTPException():
      status, message = error.status_code, error.detail
      headers |= error.headers or {}
      # Otherwise the rest of the body would be read as the next request.
      if status in (408, 413):
        headers['Connection'] = 'close'
    case http.ClientDisconnect():
      # No client reads this response, but without a response the server would
      # log a failure.
      status, message = (
        400,
        'the connection closed before the body was complete',
      )
    case _:
      status, message = 500, 'the server failed; its log has the reason'
  return responses.JSONResponse({'error': message}, status, headers)
