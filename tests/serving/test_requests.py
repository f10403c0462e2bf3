"""What a body asks for. Oracle: written down by hand."""

import dataclasses
import json

from hypothesis import given
from hypothesis import strategies as st
import pytest

from bam_jax import errors
from bam_jax.serving import requests
from bam_jax.tasks import demo

_ONE, _PAIR = 'demo_sentiment', 'demo_similarity'
_TASKS = {name: demo.TASKS[name] for name in (_ONE, _PAIR)}
_A, _AB = ('a',), ('a', 'b')


def _parse(body: object) -> list[dict[str, tuple[str, ...]]]:
  return requests.parse(json.dumps(body).encode(), _TASKS, 3, 50)


@pytest.mark.parametrize(
  ('task', 'item', 'expected'),
  [
    (_ONE, 'a', {_ONE: _A}),
    (_ONE, ['a'], {_ONE: _A}),
    (_ONE, {'text': 'a', 'text_pair': 'b', 'id': 3}, {_ONE: _A}),
    (_PAIR, ['a', 'b'], {_PAIR: _AB}),
    (_PAIR, {'text': 'a', 'text_pair': 'b'}, {_PAIR: _AB}),
    (_PAIR, {'text_a': 'a', 'text_b': 'b', 'text': 'c'}, {_PAIR: _AB}),
    (None, 'a', {_ONE: _A}),
    (None, ['a', 'b'], {_ONE: _A, _PAIR: _AB}),
    (None, {'text': 'a'}, {_ONE: _A}),
    (None, {'text': 'a', 'text_pair': 'b'}, {_ONE: _A, _PAIR: _AB}),
    (None, {'text_a': 'a', 'text_b': 'b'}, {_PAIR: _AB}),
  ],
)
def test_texts_by_task(task, item, expected):
  body = {'inputs': [item, item]} | ({'task': task} if task else {})
  assert _parse(body) == [expected, expected]


@pytest.mark.parametrize(
  ('item', 'message'),
  [
    (['', 'b'], "'text' is empty; give a text"),
    ({'text': ' ', 'text_a': '', 'text_b': 'b'}, "'text' is empty; give"),
    ({'text': 1, 'text_a': '', 'text_b': 'b'}, "'text' is not a string; give"),
  ],
)
def test_what_one_task_refuses_another_predicts(item, message):
  (found,) = _parse({'inputs': [item]})
  assert list(found) == [_ONE, _PAIR]
  assert str(found[_ONE]).startswith(f'inputs[0]: {message}')
  assert found[_PAIR] == ('', 'b')


@pytest.mark.parametrize('task', [None, _ONE])
@pytest.mark.parametrize(
  'bad', ['', None, ['', '', ''], {'x': ''}, {'text': 1}], ids=repr
)
def test_an_input_that_is_none_ends_no_other(task, bad):
  found = _parse({'inputs': [bad, 'a']} | ({'task': task} if task else {}))
  assert found[1] == {_ONE: _A}
  assert str(found[0][_ONE]).startswith('inputs[0]')


def test_a_dot_leads_into_an_object():
  table = dataclasses.replace(
    _TASKS[_ONE].tables['train'], text=('data.texts.0',)
  )
  task = dataclasses.replace(_TASKS[_ONE], tables={'train': table})
  body = json.dumps({'inputs': [{'data': {'texts': ['a', 'b']}}]}).encode()
  assert requests.parse(body, {'own': task}, 3, 50) == [{'own': _A}]


@pytest.mark.parametrize(
  ('body', 'message'),
  [
    (b'', r'a valid JSON object in UTF-8 \(Expecting value: line 1 column 1'),
    (b'\xff', r"the body is not .* UTF-8 \('utf-8' codec can't decode"),
    (b'[]', r'the body is not a valid JSON object .* \(a list in place of an'),
    (b'[' * 9999, r'a valid JSON object in UTF-8 \(nested too deep'),
    (b'{"inputs": ["a"], "inputs": []}', r"in UTF-8 \(key 'inputs' twice"),
    (b'{"input": ["a"]}', r'nor "task"; did you mean "inputs"\?'),
    (b'{"texts": ["a"]}', r'nor "task"; give the texts as "inputs"'),
    (b'{"inputs": ["a"], "id": 1}', r'nor "task"; leave it out'),
    (b'{}', r'"inputs" is missing, empty or not a'),
    (b'{"inputs": "a"}', r'"inputs" is missing, empty or not a'),
    (b'{"inputs": []}', r'"inputs" is missing, empty or not a'),
    (b'{"inputs": [" "]}', r"^inputs\[0\]: 'text' is empty; give a text$"),
    (b'{"inputs": [["", " "]], "task": "demo_similarity"}',
     r"^inputs\[0\]: 'text' and 'text_pair' are empty; give a text$"),
    (b'{"inputs": ["", "", "", ""]}', 'has 4 inputs; give at most 3'),
    (b'{"inputs": [""], "task": "sentiment"}', r"nearest is 'demo_sentiment'"),
    (b'{"inputs": [""], "task": 1}', '"task": there is no task 1;'),
    (b'{"inputs": ["", null]}', r"^inputs\[0\]: 'text' is empty; give a text$"),
    (b'{"inputs": [[]]}', r'inputs\[0\]: 0 texts; give one or two'),
    (b'{"inputs": [["", "", ""]]}', r'inputs\[0\]: 3 texts; give one or two'),
    (b'{"inputs": [{"x": ""}]}', r'inputs\[0\]: no task reads it; GET /v1/t'),
    (b'{"inputs": [{"text": 1}]}', r"inputs\[0\]: 'text' is not a string"),
    (b'{"inputs": ["\\udc00"]}', r'inputs\[0\] holds half of a surrogate pair'),
    (b'{"inputs": [["", ""]], "task": "demo_sentiment"}',
     r'inputs\[0\]: 2 texts, but task demo_sentiment needs 1'),
    (b'{"inputs": [{"text": ""}], "task": "demo_similarity"}',
     r"inputs\[0\]: no 'text_pair' beside 'text'; give the texts under such"),
    (b'{"inputs": [{"text_a": "", "text_bb": ""}],"task": "demo_similarity"}',
     r"no 'text_b' beside 'text_a'; the nearest is 'text_bb'; give the texts"),
    (b'{"inputs": [{"x": ""}], "task": "demo_similarity"}',
     r"inputs\[0\]: no 'text_a' and 'text_b', nor 'text' and 'text_pair'; "),
    (b'{"inputs": [{"txt": ""}], "task": "demo_sentiment"}',
     r"inputs\[0\]: no 'text'; the nearest is 'txt'; give the texts under"),
    (b'{"inputs": ["a", ["b", "' + b'c' * 50 + b'"]]}',
     r'inputs\[1\] has 51 characters; give at most 50'),
    (b'{"inputs": [' + b'1' * 5000 + b']}', r'object in UTF-8 \(Exceeds the'),
  ],
)  # fmt: skip
def test_a_body_that_is_none(body, message):
  with pytest.raises(errors.UserError, match=message):
    requests.parse(body, _TASKS, 3, 50)


_JSON = st.recursive(
  st.none() | st.booleans() | st.floats() | st.text(),
  lambda inner: (
    st.lists(inner, max_size=4)
    | st.dictionaries(
      st.sampled_from(['inputs', 'task', 'text', 'text_a', 'text_b', 'x']),
      inner,
      max_size=4,
    )
  ),
  max_leaves=12,
)


@given(st.binary(max_size=40) | _JSON.map(lambda x: json.dumps(x).encode()))
def test_anything_else_is_read_or_told_in_one_line(body):
  try:
    asked = requests.parse(body, _TASKS, 3, 50)
  except errors.UserError as error:
    assert str(error).isprintable()
  else:
    assert all(by_task for by_task in asked)
