"""The records of a work directory; the oracle is what was written there."""

import json

import pytest

from bam_jax import errors
from bam_jax.experiments import workspace as workspace_lib

_RECORD = {
  'run.seed': 0,
  'weights': '',
  'config.single.layer_decay': 0.9,
  'config.custom_tasks.mood.labels': ['down', 'up'],
}


@pytest.fixture
def workspace(tmp_path) -> workspace_lib.Workspace:
  """With one run, whose record knows of few fields."""
  result = workspace_lib.Workspace(tmp_path)
  result.open_runs({'old': _RECORD})
  return result


def test_a_field_newer_than_a_record_had_its_default(workspace):
  newer = {'config.model.remat': False, 'config.packing.row_buckets': []}
  workspace.check_run('old', newer)
  workspace.open_runs({'old': _RECORD | newer})
  kept = (workspace.run('old') / 'config.json').read_text()
  assert json.loads(kept) == _RECORD


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'config.model.remat': True}, r'config.model.remat was False, is True'),
    (
      {'config.single.layer_decay': 1.0},
      r'config.single.layer_decay was 0.9, is 1.0',
    ),
    # What is no field of every configuration has no default.
    ({'teacher.single-s0': 'ab'}, r"teacher.single-s0 was None, is 'ab'"),
    ({'config.custom_tasks.mood.kind': 'x'}, r"mood.kind was None, is 'x'"),
  ],
  ids=['newer', 'known', 'teacher', 'custom-task'],
)
def test_another_value_is_refused(workspace, changes, message):
  for check in (workspace.check_run, lambda n, i: workspace.open_runs({n: i})):
    with pytest.raises(errors.UserError, match=message):
      check('old', _RECORD | changes)


def test_what_a_record_has_and_a_run_lacks_is_refused(workspace):
  with pytest.raises(errors.UserError, match=r"weights was '', is None"):
    workspace.open_runs(
      {'old': {k: v for k, v in _RECORD.items() if k != 'weights'}}
    )


def test_an_identity_keeps_the_digest_that_its_record_has(workspace):
  newer = _RECORD | {'config.model.remat': False}
  assert workspace.recorded('old', newer) == _RECORD
  for other in (newer | {'run.seed': 1}, newer | {'config.model.remat': True}):
    assert workspace.recorded('old', other) is other
  assert workspace.recorded('new', newer) is newer


def test_a_field_that_decides_nothing_any_more_is_no_difference(workspace):
  """What identities held of it once stays in the record, and in its digest."""
  older = _RECORD | {'config.packing.row_buckets': [16]}
  workspace.open_runs({'older': older})
  workspace.open_runs({'older': _RECORD})
  assert workspace.recorded('older', _RECORD) == older
