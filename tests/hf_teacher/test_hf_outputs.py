"""What a model's outputs are taken for; needs no torch."""

import dataclasses

import numpy as np
import pytest

from bam_jax import errors
from bam_jax.hf_teacher import outputs
from bam_jax.tasks import glue
from bam_jax.tasks import kinds

_MNLI, _COLA, _STSB = (glue.TASKS[name] for name in ('mnli', 'cola', 'stsb'))
_MANY = dataclasses.replace(
  _COLA, kind=kinds.KINDS['multilabel'], labels=('a', 'b', 'c')
)
_OUTPUTS = np.array([[1.0, 2.0, 3.0], [5.0, 7.0, 6.0]])


@pytest.mark.parametrize(
  ('task', 'names', 'labels', 'expected'),
  [
    (
      _MNLI,
      ['CONTRADICTION', 'NEUTRAL', 'ENTAILMENT'],
      None,
      [[3, 2, 1], [6, 7, 5]],
    ),
    (
      _MNLI,
      ['neutral', 'contradiction', 'entailment'],
      None,
      [[3, 1, 2], [6, 5, 7]],
    ),
    (
      _MNLI,
      ['LABEL_0', 'LABEL_1', 'LABEL_2'],
      ['neutral', 'entailment', 'contradiction'],
      [[2, 1, 3], [7, 5, 6]],
    ),
    # As TFDS and Hugging Face's datasets name them.
    (_COLA, ['acceptable', 'unacceptable'], None, [[2, 1], [7, 5]]),
    (_COLA, ['0', '1'], None, [[1, 2], [5, 7]]),
    (_MANY, ['c', 'a', 'b'], None, [[2, 3, 1], [7, 6, 5]]),
  ],
  ids=['case', 'order', 'given', 'tfds', 'numbers', 'multilabel'],
)
def test_outputs_go_by_the_names_of_labels(task, names, labels, expected):
  head = outputs.head(task, names, None, labels, None)
  found = head.logits(_OUTPUTS[:, : len(names)])
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  ('score', 'expected'),
  [
    ('scale', [0.2, 1.0]),
    ('unit', [1.0, 5.0]),
    ('logit', [1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(-5.0))]),
  ],
)
def test_scores_are_brought_to_0_to_1(score, expected):
  head = outputs.head(_STSB, ['LABEL_0'], 'regression', None, score)
  found = head.logits(_OUTPUTS[:, :1])[:, 0]
  np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
  ('task', 'names', 'problem', 'labels', 'message'),
  [
    (
      _COLA,
      ['LABEL_0', 'LABEL_1'],
      None,
      None,
      r'^--model: its outputs are not the labels of cola: give',
    ),
    (
      _COLA,
      ['0', '1'],
      None,
      ['no', 'yes'],
      '^--labels=no,yes: these are not the labels of cola: give',
    ),
    (_COLA, ['0', '0'], None, None, r"outputs '0', '0'$"),
    (
      _COLA,
      ['a', 'b', 'c'],
      None,
      None,
      r"has 3 outputs \('a', 'b', 'c'\) where cola",
    ),
    (_STSB, ['a', 'b'], None, None, r'has 2 outputs .* has 1 \(a score\)'),
    (
      _COLA,
      ['0', '1'],
      'multi_label_classification',
      None,
      "problem_type='multi_label_classification'",
    ),
    (
      _STSB,
      ['a'],
      'single_label_classification',
      None,
      "problem_type='single_label_classification'",
    ),
  ],
  ids=['no-names', 'given', 'twice', 'count', 'score', 'multilabel', 'problem'],
)
def test_other_outputs_are_refused(task, names, problem, labels, message):
  with pytest.raises(errors.UserError, match=message) as error:
    outputs.head(task, names, problem, labels, 'scale')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('task', 'labels', 'score', 'message'),
  [
    (_STSB, None, None, r'--score is missing: .* from 0 to 5 \(scale\)'),
    (_STSB, ['a'], 'unit', '--labels: is not for stsb'),
    (_COLA, None, 'unit', '--score: is not for cola'),
    (
      dataclasses.replace(_COLA, kind=kinds.KINDS['tagging']),
      None,
      None,
      'is tagging, which',
    ),
  ],
  ids=['no-score', 'labels', 'score', 'tokens'],
)
def test_arguments_that_do_not_go_with_a_task(task, labels, score, message):
  with pytest.raises(errors.UserError, match=message):
    outputs.check(task, labels, score)


def test_other_options_are_other_logits():
  heads = [
    outputs.Head((0, 1), None, (0.0, 1.0)),
    outputs.Head((1, 0), None, (0.0, 1.0)),
    outputs.Head((0,), 'unit', (0.0, 5.0)),
    outputs.Head((0,), 'scale', (0.0, 5.0)),
  ]
  assert len({str(head.options()) for head in heads}) == len(heads)
