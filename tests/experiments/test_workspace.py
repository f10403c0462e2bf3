"""The records of a work directory; the oracle is what was written there."""

import json
import math
import shutil

import pytest

from bam_jax import errors
from bam_jax import schema
from bam_jax.experiments import workspace as workspace_lib
from bam_jax.training import checkpoint_scores

_RECORD = {
  'run.seed': 0,
  'weights': '',
  'config.single.layer_decay': 0.9,
  'config.custom_tasks.mood.labels': ['down', 'up'],
}


@pytest.fixture
def workspace(tmp_path) -> workspace_lib.Workspace:
  """With one run, whose record knows of few fields, and a checkpoint."""
  result = workspace_lib.Workspace(tmp_path)
  _open_trained(result, {'old': _RECORD})
  return result


def _open_trained(workspace, identities) -> None:
  """Opens runs, and makes as if each had a checkpoint."""
  workspace.open_runs(identities)
  for name in identities:
    step = workspace.checkpoints(name) / 'step_4'
    step.mkdir(parents=True, exist_ok=True)
    (step / checkpoint_scores.SENTINEL).touch()


def test_a_field_newer_than_a_record_had_its_default(workspace):
  newer = {'config.model.remat': False, 'config.packing.row_buckets': []}
  workspace.check_run('old', newer)
  workspace.open_runs({'old': _RECORD | newer})
  assert workspace.identity('old') == _RECORD


def test_a_damaged_record_is_named_itself(workspace):
  """A key that is none: a newer field and one that no run has any more."""
  path = workspace.run('old') / 'config.json'
  path.write_text(path.read_text().replace('layer_decay', 'layer_decby'))
  for read in (
    workspace.identity,
    lambda name: workspace.check_run(name, _RECORD),
  ):
    with pytest.raises(errors.UserError) as caught:
      read('old')
    assert str(caught.value).startswith(f'{path}: is damaged: ')


def test_a_record_older_than_the_digest_is_read(workspace):
  path = workspace.run('old') / 'config.json'
  path.write_text(json.dumps(_RECORD))
  assert workspace.identity('old') == _RECORD


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


def test_before_a_run_has_trained_its_settings_may_change(workspace):
  own = _RECORD | {'run.tasks': ['mood', 'stars']}
  workspace.open_runs({'new': own})
  assert workspace.learnt_tasks() == []
  workspace.open_runs({'new': own | {'config.model.remat': True}})
  assert workspace.identity('new')['config.model.remat'] is True
  _open_trained(workspace, {'new': own})
  assert workspace.learnt_tasks() == ['mood', 'stars']
  with pytest.raises(errors.UserError, match='remat was False, is True'):
    workspace.open_runs({'new': own | {'config.model.remat': True}})


def test_of_many_labels_those_that_changed_are_named(workspace):
  key, labels = 'config.custom_tasks.mood.labels', [f'l{i}' for i in range(90)]
  workspace.open_runs({'new': _RECORD | {key: labels}})
  for changed, message in (
    ([*labels[1:], 'more'], "lacks 'l0' of before, and has 'more' more"),
    (labels[9:], "lacks 'l0', 'l1', 'l2', 'l3', 'l4' and 4 others of before"),
    (
      [*labels[:2], 'l3', 'l2', *labels[4:]],
      "has another order: 'l3' is in place 3, where 'l2' was",
    ),
  ):
    with pytest.raises(errors.UserError) as caught:
      workspace.check_run('new', _RECORD | {key: changed})
    assert f'({key} {message})' in str(caught.value)


def test_an_encoder_that_an_older_version_did_not_record_is_kept(workspace):
  old, new = 'encoder.activation', {'encoder.activation': 'relu'}
  assert workspace.recorded('old', _RECORD | new) == _RECORD
  _open_trained(workspace, {'old': _RECORD | new, 'new': _RECORD | new})
  for name in ('old', 'new'):
    workspace.check_run(name, _RECORD | new)
  # As a merge compares a newer run with an older one.
  assert not workspace_lib.differences(_RECORD | new, _RECORD | {old: None})
  with pytest.raises(errors.UserError, match=f"{old} was 'relu', is 'gelu'"):
    workspace.open_runs({'new': _RECORD | {old: 'gelu'}})


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
  _open_trained(workspace, {'older': older})
  workspace.open_runs({'older': _RECORD})
  assert workspace.recorded('older', _RECORD) == older


_DONE = {
  'steps': 4,
  'best_step': 2,
  'parameters': 'ab',
  'seconds': 1.5,
  'device': '1 x cpu',
  'scores': {'mood': {'dev': {'accuracy': 12.5, 'f1': float('nan')}}},
}


def test_a_finished_run_is_recorded_as_it_was(workspace):
  assert workspace.read_record('old') is None
  workspace.write_record('old', _DONE)
  # An undefined score is null: JSON has no NaN.
  assert json.dumps(workspace.read_record('old')) == json.dumps(_DONE)
  assert 'NaN' not in (workspace.run('old') / 'DONE').read_text()


def test_a_record_of_an_older_version_with_nan_is_read(workspace):
  record = _DONE | {'digest': schema.digest(_DONE)}
  (workspace.run('old') / 'DONE').write_text(json.dumps(record))
  (scores,) = workspace.read_record('old')['scores']['mood'].values()
  assert scores['accuracy'] == 12.5 and math.isnan(scores['f1'])


def test_a_flipped_bit_in_the_record_of_a_finished_run_is_found(workspace):
  workspace.write_record('old', _DONE)
  path = workspace.run('old') / 'DONE'
  good, kept = path.read_bytes(), json.dumps(_DONE)
  harmless = 0
  for bit in range(8 * len(good)):
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bad)
    try:
      record = workspace.read_record('old')
      # White space, or the name of the digest itself.
      assert json.dumps({key: record[key] for key in _DONE}) == kept
      harmless += 1
    except errors.UserError as e:
      assert 'DONE: is damaged' in str(e)
  assert harmless < 0.05 * 8 * len(good)


@pytest.mark.parametrize('key', ['steps', 'parameters', 'scores'])
def test_a_record_without_a_value_is_refused(workspace, key):
  record = {k: v for k, v in _DONE.items() if k != key}
  workspace.write_record('old', record)
  with pytest.raises(errors.UserError, match=f'DONE: is damaged: {key} is not'):
    workspace.read_record('old')


def test_a_record_older_than_its_digest_is_read(workspace):
  record = _DONE | {'scores': {}}
  (workspace.run('old') / 'DONE').write_text(json.dumps(record))
  assert workspace.read_record('old') == record


@pytest.mark.parametrize('left', ['DONE', 'checkpoints/step_4', 'outputs.npz'])
def test_a_run_without_its_record_is_not_taken_for_any_run(workspace, left):
  """As when someone removed a damaged record, and changed the configuration."""
  workspace.write_record('old', _DONE)
  (workspace.run('old') / 'config.json').unlink()
  if left != 'DONE':
    (workspace.run('old') / 'DONE').unlink()
    shutil.rmtree(workspace.checkpoints('old'))
    (workspace.run('old') / left).mkdir(parents=True)
  other = _RECORD | {'config.single.layer_decay': 1.0}
  message = (
    rf'old/config.json: is missing, .* made {left.split("/")[0]} are unknown;'
    rf' remove {workspace.run("old")} and run the same command again'
  )
  reads = [
    lambda: workspace.identity('old'),
    lambda: workspace.open_runs({'old': other}),
    lambda: workspace.recorded('old', other),
  ]
  if left == 'DONE':
    reads.append(lambda: workspace.read_record('old'))
  for read in reads:
    with pytest.raises(errors.UserError, match=message):
      read()


def test_what_a_killed_process_left_of_a_record_is_no_run(workspace):
  workspace.run('new').mkdir()
  (workspace.run('new') / '.config.json.tmp').touch()
  workspace.open_runs({'new': _RECORD})
  assert workspace.identity('new') == _RECORD


@pytest.mark.parametrize('name', ['config.json', 'DONE'])
@pytest.mark.parametrize('content', ['{', '{"steps": 1, "digest": "ab"}'])
def test_the_advice_over_a_damaged_record_is_to_remove_the_run(
  workspace, name, content
):
  workspace.write_record('old', _DONE)
  (workspace.run('old') / name).write_text(content)
  with pytest.raises(
    errors.UserError, match=rf'remove {workspace.run("old")} '
  ):
    workspace.read_record('old')


def test_class_weights_decide_a_run_and_records_without_them_are_read():
  key = 'config.custom_tasks.own.class_weights'
  with_them = {key: ['balanced']}
  assert workspace_lib.differences(with_them, with_them) == []
  assert workspace_lib.differences({}, {}) == []
  for before, wanted in (({}, with_them), (with_them, {})):
    (found,) = workspace_lib.differences(before, wanted)
    assert found.startswith(f'{key} was ')
