"""Damaged files: they are read, or refused in one line, in bounded memory.

Any other exception is a failure; what is read back from a shard set must be
what was written.
"""

import shutil

import hypothesis
from hypothesis import strategies as st
import pytest

from tests.fuzz import inputs
from tests.fuzz import readers

pytestmark = pytest.mark.fuzz


@pytest.mark.parametrize('name', readers.READERS)
def test_damaged_files(name, tmp_path):
  reader = readers.READERS[name]
  good, folder = tmp_path / 'good', tmp_path / 'bad'
  good.mkdir()
  reader.make(good)
  assert readers.is_read(reader.read, good)
  expected = reader.read(good)
  contents = {file: (good / file).read_bytes() for file in reader.files}
  outcomes = {True: 0, False: 0}

  @hypothesis.given(st.data())
  def check(data):
    file = data.draw(st.sampled_from(reader.files))
    bad = data.draw(inputs.damaged(contents[file]))
    shutil.copytree(good, folder, dirs_exist_ok=True)
    (folder / file).write_bytes(bad)
    is_read = readers.is_read(reader.read, folder)
    outcomes[is_read] += 1
    if is_read and name == 'shard set':
      assert reader.read(folder) == expected

  check()
  print(f'{name}: {outcomes[True]} read, {outcomes[False]} refused')
  # An input that no reader minds tests nothing.
  assert outcomes[False] > sum(outcomes.values()) / 20
