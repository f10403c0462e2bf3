"""The server's addresses: predictions, tasks, health, a page to try it on."""

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
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
_OF_PAGE = {
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
  """What a request, and all that wait, may have at most.

  Attributes:
    body: bytes of a request's body.
    seconds: in which the head of a request is to come, and as many for its
      body.
    inputs: a request.
    characters: of the texts of an input.
    waiting: inputs times tasks that wait for a prediction.
    waiting_characters: of the texts of all of these.
    connections: at the same time; requests on further ones get 503.
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
  """The application.

  Args:
    model: its programs are compiled already.
    name: of the plan, for the page.
    limits: of requests.
  """
  batcher = batcher_lib.Batcher(
    model, limits.waiting, limits.waiting_characters
  )

  @contextlib.asynccontextmanager
  async def lifespan(
    unused_app: applications.Starlette,
  ) -> AsyncIterator[None]:
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
    characters = sum(
      len(text)
      for by_task in asked
      for texts in by_task.values()
      for text in texts
    )
    with batcher.admitted(sum(map(len, asked)), characters):
      # Other requests go on while long texts become tokens.
      inputs = await concurrency.run_in_threadpool(_encode, model, asked)
      said = iter(await batcher.predict(inputs))
    return responses.JSONResponse(
      {
        'predictions': [
          {task: next(said).as_json() for task in by_task} for by_task in asked
        ]
      }
    )

  async def tasks(unused_request: http.Request) -> responses.Response:
    return responses.JSONResponse(
      {
        'name': name,
        'tasks': [
          {
            'name': task.name,
            'kind': task.kind.name,
            'labels': task.labels,
            'scale': task.scale if task.kind.has_scale else None,
            'fields': unlabelled.names_of(task),
          }
          for task in model.tasks.values()
        ],
      }
    )

  async def health(unused_request: http.Request) -> responses.Response:
    return responses.JSONResponse({'status': 'ok', 'waiting': batcher.waiting})

  async def page(unused_request: http.Request) -> responses.Response:
    return responses.FileResponse(_PAGE, headers=_OF_PAGE)

  return applications.Starlette(
    routes=[
      routing.Route('/', page),
      routing.Route('/healthz', health),
      routing.Route('/v1/tasks', tasks),
      routing.Route('/v1/predict', predict, methods=['POST']),
    ],
    exception_handlers={
      errors.UserError: _malformed,
      batcher_lib.Overloaded: _overloaded,
      exceptions.HTTPException: _refused,
      http.ClientDisconnect: _gone,
      Exception: _failed,
    },
    lifespan=lifespan,
  )


async def _body(request: http.Request, limits: Limits) -> bytes:
  """The body, not read on where it is too long or too slow."""
  body = bytearray()
  try:
    async with asyncio.timeout(limits.seconds):
      async for part in request.stream():
        body += part
        if len(body) > limits.body:
          raise exceptions.HTTPException(
            413, f'the body is over {limits.body} bytes'
          )
  except TimeoutError:
    raise exceptions.HTTPException(
      408, f'the body took over {limits.seconds:g} s'
    ) from None
  return bytes(body)


def _encode(
  model: model_lib.Model, asked: Sequence[Mapping[str, unlabelled.Texts]]
) -> list[model_lib.Input]:
  """Tokens of all texts, by input and then by task."""
  encoded = {
    task: iter(
      model.encode(
        task, [by_task[task] for by_task in asked if task in by_task]
      )
    )
    for task in dict.fromkeys(name for by_task in asked for name in by_task)
  }
  return [next(encoded[task]) for by_task in asked for task in by_task]


def _error(
  status: int, message: str, headers: Mapping[str, str] | None = None
) -> responses.Response:
  return responses.JSONResponse({'error': message}, status, headers)


async def _malformed(
  unused_request: http.Request, error: errors.UserError
) -> responses.Response:
  return _error(400, str(error))


async def _overloaded(
  unused_request: http.Request, unused_error: batcher_lib.Overloaded
) -> responses.Response:
  return _error(503, 'too many inputs wait; try again', {'Retry-After': '1'})


async def _refused(
  unused_request: http.Request, error: exceptions.HTTPException
) -> responses.Response:
  # What is left of a body that was not read would be taken for a request.
  headers = dict(error.headers or {})
  if error.status_code in (408, 413):
    headers['Connection'] = 'close'
  return _error(error.status_code, error.detail, headers)


async def _gone(
  unused_request: http.Request, unused_error: http.ClientDisconnect
) -> responses.Response:
  # Nobody reads it; without an answer the server would log a failure.
  return _error(400, 'the connection was closed before the body came')


async def _failed(
  unused_request: http.Request, unused_error: Exception
) -> responses.Response:
  return _error(500, 'the server failed; its log says why')
