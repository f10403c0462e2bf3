"""Files of predictions: each column has a name of its own."""

import pytest

from bam_jax.inference import predict
from bam_jax.tasks import kind
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib


@pytest.mark.parametrize(
  ('labels', 'columns'),
  [
    (('no', 'yes'), ['uid', 'prediction', 'no', 'yes']),
    (('no', 'uid'), ['uid', 'prediction', 'p(no)', 'p(uid)']),
    (
      ('prediction', 'p(uid)', 'uid'),
      ['uid', 'prediction', 'p(prediction)', 'p(p(uid))', 'p(uid)'],
    ),
  ],
)
def test_labels_named_like_a_column(tmp_path, labels, columns):
  task = task_lib.Task(
    'mood',
    kinds.KINDS['classification'],
    ('accuracy',),
    'accuracy',
    {},
    labels=labels,
  )
  path = tmp_path / 'mood-test.tsv'
  shares = [1 / len(labels)] * len(labels)
  found = kind.Prediction('mood/test/0', labels[0], {}, shares)
  predict.write_tsv(path, task, [found])
  header, row, end = path.read_text().split('\n')
  assert header.split('\t') == columns
  assert len(set(columns)) == len(columns)
  assert row.split('\t')[:2] == ['mood/test/0', labels[0]]
  assert end == ''
