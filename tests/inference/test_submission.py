"""Files of predictions; a GLUE submission is checked and written whole."""

import json
import types
import zipfile

import numpy as np
import pytest

from bam_jax import errors
from bam_jax.inference import submission
from bam_jax.tasks import demo
from bam_jax.tasks import glue
from bam_jax.tasks import kind
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_TABLE = task_lib.TaskTable((glue.TASKS['rte'], glue.TASKS['stsb']))


def _by_uid(task, texts):
  return {task: {'test': {f'{task}/test/{i}': t for i, t in enumerate(texts)}}}


_PREDICTIONS = {
  **_by_uid('rte', ['entailment', 'not_entailment']),
  **_by_uid('stsb', ['0.000', '5.000', '2.125']),
}


def test_files_stand_at_the_top_level(tmp_path):
  path = tmp_path / 'submission.zip'
  submission.write(path, _TABLE, _PREDICTIONS)
  with zipfile.ZipFile(path) as archive:
    assert archive.namelist() == ['RTE.tsv', 'STS-B.tsv']
    assert archive.getinfo('RTE.tsv').compress_type == zipfile.ZIP_DEFLATED
    assert archive.read('RTE.tsv').decode() == (
      'index\tprediction\n0\tentailment\n1\tnot_entailment\n'
    )


def test_equal_predictions_give_equal_bytes(tmp_path):
  for name in ('a.zip', 'b.zip'):
    submission.write(tmp_path / name, _TABLE, _PREDICTIONS)
  assert (tmp_path / 'a.zip').read_bytes() == (tmp_path / 'b.zip').read_bytes()


@pytest.mark.parametrize(
  ('task', 'texts', 'message'),
  [
    (
      'rte',
      ['entailment', 'maybe'],
      r"RTE\.tsv:3: '1\\tmaybe' is not a valid pred",
    ),
    (
      'stsb',
      ['5.1'],
      r"STS-B\.tsv:2: '0\\t5\.1' is not a valid prediction for stsb",
    ),
    ('stsb', ['nan'], r"STS-B\.tsv:2: '0\\tnan'"),
  ],
  ids=['label', 'scale', 'nan'],
)
def test_invalid_predictions_are_refused(tmp_path, task, texts, message):
  with pytest.raises(errors.UserError, match=message):
    submission.write(tmp_path / 'submission.zip', _TABLE, _by_uid(task, texts))


def test_a_row_that_was_skipped_is_told(tmp_path):
  """The index is that of the raw file: none may be missing or renumbered."""
  texts = {'rte/test/0': 'entailment', 'rte/test/2': 'entailment'}
  with pytest.raises(errors.UserError, match=r'RTE\.tsv: row 1 has no pred'):
    submission.write(tmp_path / 'a.zip', _TABLE, {'rte': {'test': texts}})


def test_nothing_is_written_for_tasks_of_ones_own(tmp_path):
  task = demo.TASKS['demo_topic']
  path = tmp_path / 'submission.zip'
  submission.write(
    path, task_lib.TaskTable((task,)), _by_uid(task.name, ['food'])
  )
  assert not path.exists()


_TASKS = task_lib.TaskTable(
  (glue.TASKS['wnli'], glue.TASKS['stsb'], demo.TASKS['demo_topic'])
)


@pytest.mark.parametrize(
  ('labels', 'label'),
  [([0, 1, 0], '0'), ([1, 0, 1, 1], '1'), ([1, 0], '0')],
  ids=['first', 'second', 'tie'],
)
def test_every_test_row_gets_the_majority_label(labels, label):
  rows = types.SimpleNamespace(
    fixed=lambda name: {'label': np.array(labels)}[name]
  )
  predicted = _by_uid('wnli', ['0', '1', '1'])['wnli']
  assert submission.majority(glue.TASKS['wnli'], rows, predicted) == {
    'test': dict.fromkeys(predicted['test'], label)
  }


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('rte', '^--majority=rte: the plan has only the tasks wnli, stsb'),
    ('stsb', 'a regression task has no majority label'),
    ('demo_topic', 'the task has no file in a GLUE submission'),
  ],
)
def test_a_majority_that_cannot_be_submitted_is_refused(name, message):
  with pytest.raises(errors.UserError, match=message):
    submission.check_majority(['wnli', name], _TASKS)


def test_a_majority_of_no_test_rows_is_refused():
  with pytest.raises(
    errors.UserError, match='no test row of this task was predicted'
  ):
    submission.majority(glue.TASKS['wnli'], None, {})


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
  submission.write_tsv(path, task, [found])
  header, row, end = path.read_text().split('\n')
  assert header.split('\t') == columns
  assert len(set(columns)) == len(columns)
  assert row.split('\t')[:2] == ['mood/test/0', labels[0]]
  assert end == ''


def test_predictions_by_id(tmp_path):
  task = task_lib.Task(
    'own', kinds.KINDS['qa'], ('exact_match',), 'exact_match', tables={}
  )
  found = [
    kind.Prediction('own/test/0', 'a b', {'answer': 'a\nb'}),
    kind.Prediction('own/test/1', '', {'answer': None}),
  ]
  path = tmp_path / 'own-test.json'
  ids = {'own/test/0': 'x', 'own/test/1': 'y'}
  submission.write_by_id(path, task, ids, found)
  assert json.loads(path.read_text()) == {'x': 'a\nb', 'y': ''}
  with pytest.raises(
    errors.UserError, match="the id 'x' of own/test/1 is used"
  ):
    submission.write_by_id(path, task, dict.fromkeys(ids, 'x'), found)
