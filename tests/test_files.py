"""Small files of strangers, and the one line that a mistake is told in."""

import json
import os
import tracemalloc

import pytest

from bam_jax import errors
from bam_jax import files


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{', 'Expecting property name'),
    ('[1]', 'a list in place of an object'),
    ('{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' twice"),
    ('{"a": ' + '[' * 100 + ']' * 100 + '}', 'nested too deep'),
    ('{"a": ' + '[' * 99999 + ']' * 99999 + '}', 'nested too deep'),
    ('{"a": ' + '1' * 5000 + '}', 'digits'),
    ('\ufeff{}', 'BOM'),
  ],
  ids=['syntax', 'list', 'twice', 'deep', 'deepest', 'digits', 'mark'],
)
def test_json_that_is_refused(tmp_path, text, message):
  with pytest.raises(ValueError, match=message):
    files.parse_json(text)
  path = tmp_path / 'a.json'
  path.write_text(text)
  with pytest.raises(errors.UserError, match=f'a.json: is damaged .*{message}'):
    files.read_json(path)


def test_json_of_some_depth_is_read():
  value = json.loads('{"a": ' + '[' * 98 + '1' + ']' * 98 + '}')
  assert files.parse_json(json.dumps(value)) == value


def test_a_huge_file_is_not_read(tmp_path):
  path = tmp_path / 'a.json'
  with path.open('wb') as file:
    file.truncate(1 << 40)  # A hole: it takes no room on the disk.
  tracemalloc.start()
  try:
    with pytest.raises(errors.UserError, match='1099511627776 bytes, over'):
      files.read_json(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
  finally:
    tracemalloc.stop()


def test_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'a.json')
  with pytest.raises(errors.UserError, match=r'a\.json: .*no regular file'):
    files.read_json(tmp_path / 'a.json')


def test_a_mistake_is_one_line_whatever_it_quotes():
  message = str(errors.UserError('a/b: é → \n\x1b[2J\u2028\ud800; mend it'))
  assert message == 'a/b: é → \\n\\x1b[2J\\u2028\\ud800; mend it'


def test_a_long_mistake_keeps_where_and_remedy():
  message = str(errors.UserError(f'a/b: {"x" * 10**6}; mend it'))
  assert len(message) < 1100
  assert message.startswith('a/b: xx') and message.endswith('xx; mend it')
