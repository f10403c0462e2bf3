"""Damaged files: they are read, or refused in one line, in bounded memory.

Any other exception is a failure; what is read back from a shard set must be
what was written.
"""

import resource
import shutil
import sys
import tracemalloc

import hypothesis
from hypothesis import strategies as st
import pytest

from tests.fuzz import inputs
from tests.fuzz import readers

pytestmark = pytest.mark.fuzz

# Bytes that Python allocates for a file of none, and for each byte of a file:
# JSON's shortest object is two bytes there and a hundred here.
_BASE, _PER_BYTE = 1 << 20, 200


@pytest.mark.parametrize('name', readers.READERS)
def test_damaged_files(name, tmp_path):
  reader = readers.READERS[name]
  good = tmp_path / 'good'
  good.mkdir()
  reader.make(good)
  assert readers.is_read(reader.read, good)
  expected = reader.read(good)
  contents = {file: (good / file).read_bytes() for file in reader.files}
  folder = tmp_path / 'bad'
  outcomes = {True: 0, False: 0}
  before = _peak_bytes()

  @hypothesis.given(st.data())
  def check(data):
    file = data.draw(st.sampled_from(reader.files))
    bad = data.draw(inputs.damaged(contents[file]))
    shutil.copytree(good, folder, dirs_exist_ok=True)
    (folder / file).write_bytes(bad)
    tracemalloc.start()
    try:
      is_read = readers.is_read(reader.read, folder)
      peak = tracemalloc.get_traced_memory()[1]
    finally:
      tracemalloc.stop()
    size = sum(path.stat().st_size for path in readers.files_below(folder))
    assert peak < _BASE + _PER_BYTE * size
    outcomes[is_read] += 1
    if is_read and name == 'shard set':
      assert reader.read(folder) == expected

  check()
  print(f'{name}: {outcomes[True]} read, {outcomes[False]} refused')
  assert outcomes[False] > sum(outcomes.values()) / 20
  # What libraries in other languages allocate is not traced.
  assert _peak_bytes() - before < 1 << 28


def _peak_bytes() -> int:
  unit = 1 if sys.platform == 'darwin' else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
