"""Raw labels to class indices and scores."""

import pytest

from bam_jax import errors
from bam_jax.tasks import glue


def _parse(name, value):
  task = glue.TASKS[name]
  return task.kind.parse(task, value, 'f:1')


@pytest.mark.parametrize(
  ('task', 'value', 'expected'),
  [
    ('mnli', 'entailment', 0),
    ('mnli', 'contradiction', 2),
    ('rte', 'not_entailment', 1),
    ('wnli', '1', 1),
    ('stsb', '0', 0.0),
    ('stsb', '5.000', 5.0),
    ('stsb', '3.8', 3.8),
    # float32(2.3333333...) = 2.33333325386...; 2.3333333 is the shortest
    # decimal that rounds to it.
    ('stsb', '2.33333333333333', 2.3333333),
  ],
)
def test_parse(task, value, expected):
  label = _parse(task, value)
  assert label == expected
  assert type(label) is type(expected)


@pytest.mark.parametrize(
  ('task', 'value', 'message'),
  [
    (
      'rte',
      'neutral',
      "f:1: label 'neutral' is none of 'entailment', 'not_entailment'; fix"
      " the row or the labels of task 'rte'",
    ),
    (
      'stsb',
      '-0.1',
      'f:1: score -0.1 is not from 0 to 5; fix the row or the scale of task'
      " 'stsb'",
    ),
    (
      'stsb',
      'inf',
      "f:1: score 'inf' is not a number; fix the row",
    ),
    ('stsb', '', "f:1: score '' is not a number; fix the row"),
    (
      'stsb',
      '4,5',
      "f:1: score '4,5' is not a number; write the comma as a point, 4.5, in"
      ' all rows',
    ),
    (
      'stsb',
      ' 4.5 ',
      "f:1: score ' 4.5 ' is not a number; write 4.5, without blanks around it,"
      ' in all rows',
    ),
    ('stsb', '1,234,5', "f:1: score '1,234,5' is not a number; fix the row"),
    ('stsb', '50,0', "f:1: score '50,0' is not a number; fix the row"),
  ],
  ids=[
    *('unknown-label', 'below', 'infinite', 'empty', 'comma', 'blanks'),
    'commas',
    'comma-above',
  ],
)
def test_mistakes(task, value, message):
  with pytest.raises(errors.UserError) as caught:
    _parse(task, value)
  assert str(caught.value) == message
