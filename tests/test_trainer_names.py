"""Names that Hugging Face uses lead to those of this package."""

import dataclasses
import doctest

import pytest

from bam_jax import errors
from bam_jax import fields
from bam_jax import trainer_names
from bam_jax.tasks import kinds


@pytest.mark.parametrize('module', [errors, trainer_names])
def test_examples(module):
  result = doctest.testmod(module)
  assert result.attempted and not result.failed


@pytest.mark.parametrize(
  ('value', 'kind'),
  [
    ('token-classification', 'tagging'),
    ('ner', 'tagging'),
    ('question-answering', 'qa'),
    ('squad', 'qa'),
    ('multi_label_classification', 'multilabel'),
    ('single_label_classification', 'classification'),
    ('text-classification', 'classification'),
    ('sts', 'regression'),
    ('multilable', 'multilabel'),
  ],
)
def test_a_kind_of_task(value, kind):
  (message,) = errors.find_unknown('kind', [value], kinds.KINDS)
  assert message.endswith(f'; the nearest is {kind}')


def test_a_known_name_elsewhere_may_be_near_another_here():
  (message,) = errors.find_unknown('config.data.swap', ['squad'], ['squads'])
  assert message.endswith('; the nearest is squads')


@pytest.mark.parametrize(
  ('name', 'field'),
  [
    ('validation', 'dev'),
    ('eval_dataset', 'dev'),
    ('train_dataset', 'train'),
    ('num_labels', 'labels'),
    ('id2label', 'labels'),
    ('label_column_name', 'label'),
    ('problem_type', 'kind'),
    ('compute_metrics', 'metrics'),
  ],
)
def test_a_field_of_a_task(name, field):
  message = trainer_names.describe_task_field(name)
  assert message.removeprefix('; here it is ').split()[0].strip(',') == field
  assert field in {each.name for each in dataclasses.fields(fields.TaskConfig)}
