"""Outputs of runs that a stranger may have made: refused before they unpack."""

from collections.abc import Callable
import io
from pathlib import Path
import runpy
import tracemalloc
import zipfile

import numpy as np
import pytest

from bam_jax.reporting import outputs as outputs_lib
from bam_jax.tasks import kinds
from tests.reporting import plans

_MOOD = plans.make_task('mood', labels=('down', 'up'))
_LOGITS = np.array([[0, 1], [1, 0], [3, 2]], np.float32)
_GOOD = {
  'mood/dev/uid': np.array(['mood/dev/0', 'mood/dev/1', 'mood/dev/2']),
  'mood/dev/logits': _LOGITS,
  'mood/dev/label': np.array([1, 1, 0]),
}


def _read(path: Path) -> outputs_lib.Predicted:
  return outputs_lib.read(_MOOD, {0: path})


def _peak_bytes(path: Path) -> int:
  """What is allocated for a file that is refused."""
  tracemalloc.start()
  try:
    with pytest.raises(outputs_lib.Missing, match=r'outputs\.npz is damaged'):
      _read(path)
    return tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


@pytest.fixture
def path(tmp_path) -> Path:
  run = tmp_path / 'runs' / 'a'
  run.mkdir(parents=True)
  np.savez(run / 'outputs.npz', **_GOOD)
  return run / 'outputs.npz'


def _replaced(path: Path, name: str, content: bytes) -> None:
  """Another member of that name, checksum and sizes right."""
  with zipfile.ZipFile(path) as archive:
    members = {key: archive.read(key) for key in archive.namelist()}
  with zipfile.ZipFile(path, 'w') as archive:
    for key, value in (members | {f'{name}.npy': content}).items():
      archive.writestr(key, value)


def _member(array: np.ndarray, change: Callable[[bytes], bytes]) -> bytes:
  data = io.BytesIO()
  np.lib.format.write_array(data, array, allow_pickle=True)
  return change(data.getvalue())


def test_what_a_run_leaves_is_read(path):
  found = _read(path)
  assert found.uids.tolist() == _GOOD['mood/dev/uid'].tolist()
  assert found.predictions.tolist() == [[1, 0, 0]]
  assert found.gold.tolist() == [1, 1, 0]


def test_columns_first_is_read_as_numpy_does(path):
  _replaced(
    path,
    'mood/dev/logits',
    _member(np.asfortranarray(_LOGITS), lambda data: data),
  )
  with np.load(path) as arrays:
    np.testing.assert_array_equal(arrays['mood/dev/logits'], _LOGITS)
  assert _read(path).predictions.tolist() == [[1, 0, 0]]


def test_what_unpacks_to_much_is_not_unpacked(path):
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name in _GOOD:
      with archive.open(f'{name}.npy', 'w') as member:
        for _ in range(1 << 6):
          member.write(bytes(1 << 20))
  assert path.stat().st_size < 1 << 20
  assert _peak_bytes(path) < 1 << 20


def test_members_that_share_their_bytes_are_not_read(path):
  """Each is as large as the file says, all together are larger."""
  _replaced(path, 'mood/dev/label', bytes(1 << 20))
  with zipfile.ZipFile(path, 'a') as archive:
    (large,) = (m for m in archive.infolist() if m.file_size == 1 << 20)
    for number in range(100):
      copy = zipfile.ZipInfo(f'mood/dev/{number}.npy')
      copy.header_offset, copy.CRC = large.header_offset, large.CRC
      copy.file_size = copy.compress_size = large.file_size
      archive.filelist.append(copy)
    archive._didModify = True
  assert _peak_bytes(path) < 1 << 20


def test_a_hole_is_not_read(path):
  with path.open('rb+') as file:
    content = file.read()
    file.seek(1 << 40)  # It takes no room on the disk.
    file.write(content)
  with zipfile.ZipFile(path) as archive:  # A zip may have anything before it.
    assert len(archive.namelist()) == 3
  assert _peak_bytes(path) < 1 << 20


@pytest.mark.parametrize(
  ('old', 'new'),
  [
    (b'(3, 2)', b'(9999999999, 2)'),
    (b'(3, 2)', b'(999999999999999999999999, 2)'),
    (b'(3, 2)', b'(-3, -2)'),
    (b"'<f4'", b"'<U0'"),
    (b"'<f4'", b"'|O'"),
    (b"'<f4'", b"'<c8'"),
    (b'False', b'[[[[['),
  ],
)
def test_a_header_that_claims_other_values_is_refused(path, old, new):
  def change(data: bytes) -> bytes:
    assert old in data
    head, values = data[:128], data[128:]
    changed = head[:-1].replace(old, new).rstrip() + b'\n'
    length = (len(changed) - 10).to_bytes(2, 'little')
    return changed[:8] + length + changed[10:] + values

  _replaced(path, 'mood/dev/logits', _member(_LOGITS, change))
  assert _peak_bytes(path) < 1 << 20


def test_a_pickle_is_not_loaded(path):
  array = np.array([{'a': 1}], object)
  _replaced(path, 'mood/dev/logits', _member(array, lambda data: data))
  assert _peak_bytes(path) < 1 << 20


def test_collected_outputs_predict_the_same(tmp_path):
  """As what is kept of a work directory in docs/results."""
  script = Path(__file__).parents[2] / 'docs' / 'results' / 'collect.py'
  collect = runpy.run_path(str(script))['_predictions']
  kind = kinds.KINDS['multilabel']
  topics = plans.make_task(
    'topics', 'micro_f1', kind=kind, labels=('a', 'b', 'c')
  )
  logits = np.array([[2, 1, -1], [-1, -2, -3], [0.5, -1, 4]], np.float32)
  path = tmp_path / 'outputs.npz'
  np.savez(
    path,
    **_GOOD,
    **{
      'topics/dev/uid': np.array(['topics/dev/0', 'topics/dev/1', 'x']),
      'topics/dev/logits': logits,
      'topics/dev/label': np.zeros((3, 3)),
    },
  )
  before = [outputs_lib.read(t, {0: path}) for t in (_MOOD, topics)]
  assert before[1].predictions.sum() == 4  # Of all rows, by hand.
  path.write_bytes(collect(path))
  for task, own in zip((_MOOD, topics), before):
    found = outputs_lib.read(task, {0: path})
    np.testing.assert_array_equal(found.predictions, own.predictions)
