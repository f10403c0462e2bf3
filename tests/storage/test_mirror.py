"""What goes up and comes down, by moto's S3 server and real checkpoints."""

from collections.abc import Iterator, Mapping
import contextlib
import json
from pathlib import Path
import shutil
import threading
import time

import jax
import jax.numpy as jnp
import pytest

from bam_jax import errors
from bam_jax.core import step as step_lib
from bam_jax.data import shards
from bam_jax.runtime import preemption
from bam_jax.storage import complete
from bam_jax.storage import mirror
from bam_jax.storage import store_lock
from bam_jax.storage import stores
from bam_jax.training import checkpoint_scores
from bam_jax.training import checkpoints

_FIELD = (shards.Field('uid', 'bytes', 1),)
_CHECKPOINTS = 'runs/one/checkpoints'


@pytest.fixture(autouse=True)
def seldom(monkeypatch):
  """Nothing goes up before the end, but where a test has it so."""
  monkeypatch.setattr(mirror, 'EVERY', 1000.0)


@contextlib.contextmanager
def _mirror(
  url: str, scratch: Path, preemption_signal: preemption.Signal | None = None
) -> Iterator[None]:
  preemption_signal, store = (
    preemption_signal or preemption.Signal(),
    stores.Store(url),
  )
  with (
    store_lock.StoreLock(store, preemption_signal) as held,
    mirror.Mirror(store, held, scratch, preemption_signal),
  ):
    yield


def _state(step: int) -> step_lib.TrainState:
  return step_lib.TrainState(
    step=jnp.asarray(step),
    params={'w': jnp.full((8, 8), float(step))},
    opt_state={'m': jnp.ones((8, 8))},
    dropout_key=jax.random.key_data(jax.random.key(0)),
  )


def _save(scratch: Path, **scores: float | None) -> None:
  """Saves checkpoints: `s4=0.5` is step 4 with that score."""
  with checkpoints.Checkpoints(scratch / _CHECKPOINTS) as saved:
    for step, score in scores.items():
      saved.save(_state(int(step[1:])), score)
      saved.wait()


def _write(scratch: Path, files: Mapping[str, str]) -> None:
  for name, text in files.items():
    (scratch / name).parent.mkdir(parents=True, exist_ok=True)
    (scratch / name).write_text(text)


def _work(scratch: Path) -> None:
  """A set of features, and a run with a checkpoint, both complete."""
  rows = [{'uid': f'{number}'} for number in range(3)]
  shards.write(scratch / 'features/t/train', _FIELD, rows, {})
  shards.open(scratch / 'features/t/train', _FIELD, {})
  _save(scratch, s4=0.5)
  _write(scratch, {'runs/one/metrics.jsonl': '{}\n', 'report.md': 'told'})


def _content(scratch: Path) -> dict[str, bytes]:
  names = complete.names(scratch)
  return {name: (scratch / name).read_bytes() for name in names}


def _steps(url: str) -> set[str]:
  """The steps of which the store has anything at all."""
  names = stores.Store(url).names(_CHECKPOINTS)
  return {name.split('/')[3] for name in names}


def test_what_is_complete_goes_up_and_comes_down(s3, tmp_path):
  first, second = tmp_path / 'first', tmp_path / 'second'
  with _mirror(s3, first):
    _work(first)
  names = stores.Store(s3).names('')
  assert 'features/t/train/manifest.json' in names
  assert f'{_CHECKPOINTS}/step_4/{checkpoint_scores.SENTINEL}' in names
  assert not [name for name in names if '/columns' in name or '.mirror' in name]
  with _mirror(s3, second):
    assert _content(second) == _content(first)
    assert len(shards.open(second / 'features/t/train', _FIELD, {})) == 3
    with checkpoints.Checkpoints(second / _CHECKPOINTS) as saved:
      assert saved.restore(_state(0)).params['w'][0, 0] == 4


def test_what_is_not_complete_stays(s3, tmp_path):
  with _mirror(s3, tmp_path):
    _work(tmp_path)
    (tmp_path / 'features/t/train/manifest.json').unlink()
    (tmp_path / _CHECKPOINTS / 'step_4' / checkpoint_scores.SENTINEL).unlink()
    _save(tmp_path / 'other', s8=None)
    shutil.copytree(
      tmp_path / 'other' / _CHECKPOINTS / 'step_8',
      tmp_path / _CHECKPOINTS / 'step_8.orbax-checkpoint-tmp',
    )
    shutil.rmtree(tmp_path / 'other')
  assert sorted(stores.Store(s3).names('')) == [
    mirror.INDEX,
    'report.md',
    'runs/one/metrics.jsonl',
  ]


def test_nothing_is_sent_again(s3, tmp_path, monkeypatch):
  sent = []
  upload = stores.Store.upload

  def watched(self, sources):
    sent.extend(sources)
    upload(self, sources)

  monkeypatch.setattr(stores.Store, 'upload', watched)
  with _mirror(s3, tmp_path):
    _work(tmp_path)
  # Marks come last.
  marks = [name.rpartition('/')[2] in complete.SENTINELS for name in sent]
  assert marks == sorted(marks)
  sent.clear()
  with _mirror(s3, tmp_path):
    (tmp_path / 'report.md').touch()
    _write(tmp_path, {'runs/one/metrics.jsonl': '{}\n{}\n'})
  assert sent == ['runs/one/metrics.jsonl']


def test_old_checkpoints_go_and_the_best_stays(s3, tmp_path):
  with _mirror(s3, tmp_path):
    _save(tmp_path, s4=0.9, s8=0.5)
  assert _steps(s3) == {'step_4', 'step_8'}
  with _mirror(s3, tmp_path):
    _save(tmp_path, s12=0.7)
  assert _steps(s3) == {'step_4', 'step_12'}
  with _mirror(s3, tmp_path):
    _write(tmp_path, {'runs/one/DONE': '{}'})
    with checkpoints.Checkpoints(tmp_path / _CHECKPOINTS) as saved:
      saved.drop_optimizer()
  names = stores.Store(s3).names('runs')
  assert not [name for name in names if '/train/' in name]
  assert f'{_CHECKPOINTS}/step_12/params/_METADATA' in names


def test_a_machine_takes_over_what_another_has_done(s3, tmp_path):
  first, second = tmp_path / 'first', tmp_path / 'second'
  with _mirror(s3, first):
    _work(first)
  with _mirror(s3, second):
    _save(second, s8=0.6)
    _write(second, {'report.md': 'told anew'})
  # What the first one did since is older than what the other one has done.
  _save(first, s6=0.1)
  with _mirror(s3, first):
    assert _content(first) == _content(second)
    # Orbax takes an empty folder for a checkpoint.
    steps = sorted(path.name for path in (first / _CHECKPOINTS).iterdir())
    assert steps == ['step_8']


def test_what_a_store_missed_is_brought_up_by_the_next(s3, s3_server, tmp_path):
  with _mirror(s3, tmp_path):
    _work(tmp_path)
  with (
    pytest.raises(errors.RetryError, match=rf'{tmp_path} has everything'),
    _mirror(s3, tmp_path),
  ):
    _save(tmp_path, s8=0.6)
    s3_server.stop()
  with checkpoints.Checkpoints(tmp_path / _CHECKPOINTS) as saved:
    assert saved.latest_step == 8
  s3_server.start()
  with _mirror(s3, tmp_path):
    pass
  assert _steps(s3) == {'step_8'}
  assert 'report.md' in stores.Store(s3).names('')


def test_a_notice_waits_for_what_is_complete(s3, tmp_path):
  preemption_signal = preemption.Signal()
  with (
    preemption_signal,
    pytest.raises(preemption.Preempted),
    _mirror(s3, tmp_path, preemption_signal),
  ):
    _save(tmp_path, s4=None)
    preemption_signal.trigger()
  assert _steps(s3) == {'step_4'}
  assert stores.Store(s3).read('LOCK') is None


def test_a_notice_while_it_goes_up_waits_too(s3, tmp_path, monkeypatch):
  preemption_signal, upload = preemption.Signal(), stores.Store.upload

  def disturbed(self, sources):
    preemption_signal.trigger()
    upload(self, sources)

  monkeypatch.setattr(stores.Store, 'upload', disturbed)
  with (
    preemption_signal,
    pytest.raises(preemption.Preempted),
    _mirror(s3, tmp_path, preemption_signal),
  ):
    _save(tmp_path, s4=None)
  assert _steps(s3) == {'step_4'}
  assert (
    f'{_CHECKPOINTS}/step_4' in stores.Store(s3).read(mirror.INDEX).decode()
  )


def test_a_store_that_fails_for_long_gives_notice(s3, tmp_path, monkeypatch):
  monkeypatch.setattr(mirror, 'EVERY', 0.05)
  monkeypatch.setattr(mirror, 'PATIENCE', 0.5)
  preemption_signal, told = preemption.Signal(), False
  with (
    preemption_signal,
    pytest.raises(errors.UserError, match='taken over by process 1'),
    _mirror(s3, tmp_path, preemption_signal),
  ):
    # As permanent as an error gets.
    lock = {'token': 'of another', 'holder': 'process 1', 'since': 0}
    stores.Store(s3).write('LOCK', json.dumps(lock).encode())
    for _ in range(100):
      time.sleep(0.1)
      try:
        preemption_signal.check()
      except preemption.Preempted:
        told = True
        break
  assert told


def test_what_a_dead_process_left_half_is_not_taken(s3, tmp_path):
  first = tmp_path / 'first'
  with _mirror(s3, first):
    _work(first)
  _save(first, s8=0.6)
  # Sent, and not named when the process died.
  store = stores.Store(s3)
  files = [
    p for p in (first / _CHECKPOINTS / 'step_8').rglob('*') if p.is_file()
  ]
  store.upload({p.relative_to(first).as_posix(): p for p in files})
  with _mirror(s3, tmp_path / 'second'):
    assert not (tmp_path / 'second' / _CHECKPOINTS / 'step_8').exists()
  assert _steps(s3) == {'step_4'}


def test_a_damaged_object_is_told(s3, tmp_path):
  with _mirror(s3, tmp_path / 'first'):
    _work(tmp_path / 'first')
  name = f'{_CHECKPOINTS}/step_4/params/_METADATA'
  stores.Store(s3).write(name, b'{}')
  with (
    pytest.raises(errors.UserError, match=f'{name}: is damaged .it differs'),
    _mirror(s3, tmp_path / 'second'),
  ):
    pass
  # As it says how to fix it.
  stores.Store(s3).delete(stores.Store(s3).names(_CHECKPOINTS))
  with _mirror(s3, tmp_path / 'second'):
    assert (tmp_path / 'second' / 'report.md').exists()
    assert not (tmp_path / 'second' / _CHECKPOINTS).exists()


def test_a_scratch_of_something_else_is_refused(s3, tmp_path):
  with _mirror(f'{s3}/a', tmp_path / 'a'):
    _work(tmp_path / 'a')
  with _mirror(f'{s3}/b', tmp_path / 'b'):
    _work(tmp_path / 'b')
  _write(tmp_path / 'c', {'notes.txt': 'mine'})
  for scratch, message in (
    ('b', f'b: is in use for {s3}/b; choose another --scratch'),
    ('c', f'c: holds files that are not from {s3}/a; choose another --scratch'),
  ):
    before = _content(tmp_path / scratch)
    with (
      pytest.raises(errors.UserError, match=message),
      _mirror(f'{s3}/a', tmp_path / scratch),
    ):
      pass
    assert _content(tmp_path / scratch) == before


@pytest.mark.parametrize(
  ('index', 'message'),
  [
    ('{', 'is damaged'),
    ('{"writer": "a"}', 'is damaged'),
    ('{"writer": "a", "files": {"../x": [1, ""]}}', r'\.\./x leads out'),
    ('{"writer": "a", "files": {"/x": [1, ""]}}', '/x leads out'),
    ('{"writer": "a", "files": {"LOCK": [1, ""]}}', 'LOCK is never copied'),
    ('{"writer": "a", "files": {".mirror/a": [1, ""]}}', 'is never copied'),
    ('{"writer": "a", "files": ["x"]}', 'its files are not an object'),
  ],
)
def test_a_hostile_index_is_refused(s3, tmp_path, index, message):
  stores.Store(s3).write(mirror.INDEX, index.encode())
  with pytest.raises(errors.UserError, match=message), _mirror(s3, tmp_path):
    pass


def test_a_link_of_the_user_is_not_copied_up(s3, tmp_path):
  scratch, secret = tmp_path / 'scratch', tmp_path / 'key'
  secret.write_text('secret')
  (scratch / 'notes').mkdir(parents=True)
  for place in ('key', 'notes/key'):
    (scratch / place).symlink_to(secret)
  (scratch / 'notes' / 'mine').write_text('mine')
  with _mirror(s3, scratch):
    pass
  assert sorted(stores.Store(s3).names('')) == [mirror.INDEX, 'notes/mine']


@pytest.mark.parametrize('name', ['runs', '.mirror'])
def test_a_scratch_with_a_link_is_refused(s3, tmp_path, name):
  scratch, elsewhere = tmp_path / 'scratch', tmp_path / 'elsewhere'
  for folder in (scratch, elsewhere):
    folder.mkdir()
  (scratch / name).symlink_to(elsewhere)
  with (
    pytest.raises(errors.UserError, match=f'{name}: is a link'),
    _mirror(s3, scratch),
  ):
    pass
  assert not list(elsewhere.iterdir())


def test_steps_that_are_kept_are_those_that_orbax_keeps(tmp_path):
  managed, all_steps = tmp_path / 'managed', tmp_path / 'all'
  scores = [0.5, 0.7, 0.7, None, 0.2, 0.9, 0.7]
  with checkpoints.Checkpoints(managed) as saved:
    for step, score in enumerate(scores, start=8):
      saved.save(_state(step), score)
      saved.wait()
      shutil.copytree(managed / f'step_{step}', all_steps / f'step_{step}')
      left = {path.name for path in managed.iterdir()}
      assert {
        f'step_{step}' for step in checkpoint_scores.kept(all_steps)
      } == left


def test_what_changes_during_a_look_is_looked_at_again(tmp_path, monkeypatch):
  scratch, look = tmp_path / 'work', complete._find
  looks = []

  def disturbed(*arguments):
    found = look(*arguments)
    looks.append(found.steps)
    if len(looks) == 1:
      _save(scratch, s8=None)
    return found

  monkeypatch.setattr(complete, '_find', disturbed)
  _save(scratch, s4=None)
  found = complete.find(scratch, tmp_path / 'stage', {})
  assert looks == [{_CHECKPOINTS: [4]}, {_CHECKPOINTS: [8]}]
  assert found.steps == looks[1]
  assert not [name for name in found.files if '/step_4/' in name]


def test_checkpoints_are_whole_while_others_are_saved(tmp_path):
  """Saved and deleted by one thread, looked for by another."""
  scratch, stage = tmp_path / 'work', tmp_path / 'stage'
  stop, failed = threading.Event(), []

  def train():
    try:
      with checkpoints.Checkpoints(scratch / _CHECKPOINTS) as saved:
        step = 0
        while not stop.is_set():
          step += 1
          saved.save(_state(step), score=float(step % 7))
    except Exception as e:
      failed.append(e)

  thread = threading.Thread(target=train)
  thread.start()
  seen: set[str] = set()
  try:
    # As many looks as it takes, on however busy a machine.
    end = time.monotonic() + 60
    while len(seen) <= 5 and not failed and time.monotonic() < end:
      complete.find(scratch, stage, {})
      for folder in stage.glob(f'{_CHECKPOINTS}/step_*'):
        names = {name.rpartition('/')[0] for name in complete.names(folder)}
        assert {
          'params',
          'train',
          'metrics',
          'params/ocdbt.process_0/d',
        } <= names
        seen.add(folder.name)
  finally:
    stop.set()
    thread.join()
  assert not failed
  assert len(seen) > 5
  # The stage is readable when its steps are long gone.
  with checkpoints.Checkpoints(stage / _CHECKPOINTS) as saved:
    state = saved.restore(_state(0))
    assert state.params['w'][0, 0] == state.step == saved.latest_step
