"""A server on the loopback.

Oracle: what the model says of the same texts when it is called itself.
"""

import contextlib
import socket
import time

import pytest

from bam_jax import errors
from bam_jax.serving import server
from bam_jax.tasks import demo
from tests.serving import serving
from tests.serving import tiny_model

_ONE, _PAIR = 'demo_sentiment', 'demo_similarity'


@pytest.fixture(scope='module')
def model():
  made = tiny_model.make().model
  made.compile()
  return made


@pytest.fixture(scope='module')
def served(model):
  with serving.Served(model, body=5000, seconds=1, inputs=64) as running:
    yield running


def _expected(model, task, *texts) -> dict:
  (result,) = model.predict(model.encode(task, [texts]))
  return result.as_json()


def _assert_same(found, expected):
  assert found.keys() == expected.keys()
  for key, value in expected.items():
    if key in ('label', 'truncated'):
      assert found[key] == value
    else:
      assert found[key] == pytest.approx(value, abs=1e-4)


def test_mixed_tasks_in_their_order(served, model):
  rows = [(r.text_a, r.text_b) for r in demo.generate(_PAIR, 'dev')[:30]]
  inputs = [list(row) if i % 3 else row[0] for i, row in enumerate(rows)]
  answer = served.predict(inputs)
  assert answer.status == 200
  predictions = answer.json['predictions']
  for i, (row, found) in enumerate(zip(rows, predictions, strict=True)):
    assert list(found) == ([_ONE, _PAIR] if i % 3 else [_ONE])
    _assert_same(found[_ONE], _expected(model, _ONE, row[0]))
    if i % 3:
      _assert_same(found[_PAIR], _expected(model, _PAIR, *row))


def test_a_text_that_is_too_long_is_told(served):
  (found,) = served.predict(['dog ' * 100]).json['predictions']
  assert found[_ONE]['truncated'] is True


def test_nothing_is_compiled_for_requests(served):
  programs = tiny_model.make().setup.programs
  before = programs.compilations
  for count in (1, 7, 64):
    assert served.predict(['a dog .'] * count).status == 200
  assert programs.compilations == before


def test_tasks_and_health(served):
  assert served.ask('/healthz').json == {'status': 'ok', 'waiting': 0}
  found = served.ask('/v1/tasks').json
  assert found['name'] == 'tiny <plan>'
  assert found['tasks'] == [
    {
      'name': _ONE,
      'kind': 'classification',
      'labels': ['negative', 'positive'],
      'scale': None,
      'fields': [['text']],
    },
    {
      'name': _PAIR,
      'kind': 'regression',
      'labels': [],
      'scale': [0, 5],
      'fields': [['text_a', 'text_b'], ['text', 'text_pair']],
    },
  ]


def test_the_page_lets_nothing_in(served):
  answer = served.ask('/')
  assert answer.status == 200
  assert answer.headers['content-type'].startswith('text/html')
  assert "default-src 'none'" in answer.headers['content-security-policy']
  assert b'http' not in answer.body  # It needs nothing from elsewhere.


@pytest.mark.parametrize(
  ('path', 'body', 'method', 'status', 'message'),
  [
    ('/v1/predict', b'{', None, 400, 'the body is not a valid JSON object'),
    ('/v1/predict', {'inputs': [1]}, None, 400, 'inputs[0] is not a string'),
    ('/v1/predict', {'inputs': ['a'] * 65}, None, 400, 'give at most 64'),
    ('/v1/predict', b'a' * 5001, None, 413, 'the body is over 5000 bytes'),
    ('/v1/predict', None, None, 405, 'Method Not Allowed'),
    ('/', b'a', None, 405, 'Method Not Allowed'),
    ('/v2', None, None, 404, 'Not Found'),
  ],
)
def test_what_is_refused_is_told_in_one_line(
  served, path, body, method, status, message
):
  answer = served.ask(path, body, method)
  assert answer.status == status
  assert list(answer.json) == ['error']
  assert message in answer.json['error']
  assert served.ask('/healthz').json == {'status': 'ok', 'waiting': 0}


def test_a_body_that_does_not_come(served):
  with socket.create_connection(('127.0.0.1', served.port)) as connection:
    connection.sendall(
      b'POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{'
    )
    connection.settimeout(30)
    answer = b''
    while part := connection.recv(4096):
      answer += part
  assert answer.startswith(b'HTTP/1.1 408 ')
  assert answer.endswith(b'{"error":"the body took over 1 s; send it again"}')


def _read_to_end(connection: socket.socket) -> bytes:
  connection.settimeout(30)
  answer = b''
  while part := connection.recv(4096):
    answer += part
  return answer


_HEAD = b'GET /healthz HTTP/1.1\r\nHost: x\r\n'


@pytest.mark.parametrize(
  'before', [b'', _HEAD + b'\r\n'], ids=['first', 'next']
)
def test_a_head_that_does_not_come(served, before):
  """However often another byte of it comes; `served` waits for a second."""
  with socket.create_connection(('127.0.0.1', served.port)) as connection:
    if before:
      connection.sendall(before)
      assert connection.recv(4096).startswith(b'HTTP/1.1 200 ')
    begun = time.monotonic()
    connection.sendall(_HEAD)
    with contextlib.suppress(OSError):
      while time.monotonic() < begun + 10:
        connection.sendall(b'X')
        time.sleep(0.1)
    assert 0.9 < time.monotonic() - begun < 8
  assert served.ask('/healthz').status == 200


def test_a_slow_answer_is_not_a_slow_head(model):
  """The limit ends with the head: an answer may take longer."""
  gate = serving.Gate(model)
  with serving.Served(gate, seconds=0.2) as served:
    answer = served.later(['a dog .'])
    assert gate.begun.acquire(timeout=30)
    time.sleep(0.5)
    gate.open.set()
    assert answer.result(30).status == 200


def test_a_connection_that_is_dropped_is_no_failure(served, caplog):
  with socket.create_connection(('127.0.0.1', served.port)) as connection:
    connection.sendall(
      b'POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{'
    )
    time.sleep(0.2)
  time.sleep(0.2)
  assert served.ask('/healthz').json == {'status': 'ok', 'waiting': 0}
  assert caplog.records == []


def test_long_texts_count_by_their_characters(model):
  gate = serving.Gate(model)
  with serving.Served(gate, characters=1000, waiting_characters=1500) as served:
    first = served.later(['dog ' * 200])
    assert gate.begun.acquire(timeout=30)
    assert served.predict(['dog ' * 200]).status == 503
    answer = served.predict(['dog ' * 251])
    assert answer.status == 400
    assert '1004 characters; give at most 1000' in answer.json['error']
    gate.open.set()
    assert first.result(30).status == 200
    assert served.predict(['dog ' * 200]).status == 200


def test_requests_of_one_time_are_one_batch(model):
  gate = serving.Gate(model)
  words = ['good', 'bad', 'great', 'awful', 'dull']
  with serving.Served(gate) as served:
    first = served.later(['a dog .'])
    assert gate.begun.acquire(timeout=30)
    others = [served.later([f'a {word} movie .'] * 2) for word in words]
    for _ in (first, *others):
      assert gate.encoded.acquire(timeout=30)
    served.ask('/healthz')  # The server queues what is encoded before.
    gate.open.set()
    assert first.result(30).status == 200
    for word, other in zip(words, others, strict=True):
      predictions = other.result(30).json['predictions']
      assert len(predictions) == 2
      for found in predictions:
        expected = _expected(model, _ONE, f'a {word} movie .')
        _assert_same(found[_ONE], expected)
  assert gate.batches == [1, 10]


def test_too_many_are_sent_away_and_told_when_to_come(model):
  gate = serving.Gate(model)
  with serving.Served(gate, waiting=3) as served:
    # Alone it is let in, however large.
    first = served.later(['a dog .'] * 4)
    assert gate.begun.acquire(timeout=30)
    answer = served.predict(['a cat .'])
    assert answer.status == 503
    assert answer.headers['retry-after'] == '1'
    assert answer.json == {
      'error': 'too many inputs are waiting; try again later'
    }
    assert served.ask('/healthz').json == {'status': 'ok', 'waiting': 4}
    gate.open.set()
    assert first.result(30).status == 200
    assert served.predict(['a cat .'] * 3).status == 200


def test_who_was_let_in_is_answered_before_the_end(model):
  gate = serving.Gate(model)
  with serving.Served(gate) as served:
    last = served.later(['a dog .'])
    assert gate.begun.acquire(timeout=30)
    served.stop()
    gate.open.set()
    answer = last.result(30)
    assert answer.status == 200
    expected = _expected(model, _ONE, 'a dog .')
    _assert_same(answer.json['predictions'][0][_ONE], expected)
  with pytest.raises(ConnectionRefusedError):
    served.ask('/healthz')


def test_a_batch_that_fails_ends_no_other(model):
  class Failing(serving.Gate):
    def predict(self, inputs):
      if not self.open.is_set():
        self.open.set()
        raise RuntimeError('out of memory')
      return super().predict(inputs)

  with serving.Served(Failing(model)) as served:
    answer = served.predict(['a dog .'])
    assert answer.status == 500
    assert answer.json == {'error': 'the server failed; its log has the reason'}
    assert served.predict(['a dog .']).status == 200
    assert served.ask('/healthz').json['waiting'] == 0


@pytest.mark.parametrize(
  ('host', 'port'), [('127.0.0.1', -1), ('192.0.2.1', 0)]
)
def test_an_address_that_cannot_be_had(host, port):
  with pytest.raises(errors.UserError, match=rf'--host={host} --port={port}: '):
    server.bind(host, port)


def test_a_port_that_is_taken():
  with server.bind('127.0.0.1', 0) as taken:
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(errors.UserError, match=r'in use.*; choose another'):
      server.bind('127.0.0.1', port)
