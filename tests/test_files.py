"""Small files of strangers, and the one line that a mistake is told in."""

import errno
import json
import os
from pathlib import Path
import socket
import subprocess
import sys
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
  with pytest.raises(errors.UserError, match=r'a\.json: .*not a regular file'):
    files.read_json(tmp_path / 'a.json')


def test_a_mistake_is_one_line_whatever_it_quotes():
  message = str(errors.UserError('a/b: é → \n\x1b[2J\u2028\ud800; fix it'))
  assert message == 'a/b: é → \\n\\x1b[2J\\u2028\\ud800; fix it'


def test_a_long_mistake_keeps_where_and_remedy():
  message = str(errors.UserError(f'a/b: {"x" * 10**6}; fix it'))
  assert len(message) < 4100
  assert message.startswith('a/b: xx') and message.endswith('xx; fix it')


def _make(kind: str, path: Path, secret: Path) -> None:
  """Something at a path that is neither a folder nor a regular file."""
  if kind == 'link':
    path.symlink_to(secret)
  elif kind == 'link to a folder':
    path.symlink_to(secret.parent)
  elif kind == 'link to nothing':
    path.symlink_to(secret.parent / 'nothing')
  elif kind == 'pipe':
    os.mkfifo(path)
  else:
    with socket.socket(socket.AF_UNIX) as made:
      made.bind(str(path))


_KINDS = ('link', 'link to a folder', 'link to nothing', 'pipe', 'socket')


@pytest.fixture
def secret(tmp_path, monkeypatch) -> Path:
  """A file elsewhere, which must stay as it is; sockets have short names."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'elsewhere').mkdir()
  path = tmp_path / 'elsewhere' / 'key'
  path.write_text('secret')
  yield path
  assert path.read_text() == 'secret'
  assert [entry.name for entry in path.parent.iterdir()] == ['key']


@pytest.mark.parametrize('kind', _KINDS)
def test_what_waits_in_the_place_of_a_new_file_is_not_followed(secret, kind):
  for name in ('a', '.a.tmp'):
    _make(kind, Path(name), secret)
  files.write_text(Path('a'), 'new')
  assert Path('a').read_text() == 'new'
  assert not Path('a').is_symlink()
  assert not Path('.a.tmp').exists()


def test_a_link_that_comes_in_between_is_not_followed(secret, monkeypatch):
  unlink = Path.unlink

  def late(path, **options):
    unlink(path, **options)
    path.symlink_to(secret)

  monkeypatch.setattr(Path, 'unlink', late)
  with pytest.raises(errors.UserError, match='a: cannot be written: File exis'):
    files.write_text(Path('a'), 'new')


def test_a_file_that_cannot_be_filled_leaves_the_old_one(tmp_path):
  path = tmp_path / 'a'
  path.write_text('old')
  with pytest.raises(ValueError), files.new_file(path) as file:
    file.write(b'half')
    raise ValueError
  assert path.read_text() == 'old'
  assert [entry.name for entry in tmp_path.iterdir()] == ['a']


@pytest.mark.parametrize('mode', ['r', 'a', 'a+', 'w'])
@pytest.mark.parametrize('kind', _KINDS)
def test_no_link_or_pipe_is_opened(secret, kind, mode):
  _make(kind, Path('a'), secret)
  with pytest.raises(OSError, match=r'is a link|is not a regular file'):
    files.open_file(Path('a'), mode)


def test_a_link_is_no_record(secret):
  Path('a.json').symlink_to(secret)
  with pytest.raises(errors.UserError, match=r'a\.json: .*is a link'):
    files.read_json(Path('a.json'))


@pytest.mark.parametrize('kind', _KINDS)
@pytest.mark.parametrize('place', ['source', 'source/x', 'source/deep/x'])
def test_a_folder_with_a_link_is_not_copied(secret, kind, place):
  source, target = Path('source'), Path('target')
  if place == 'source':
    if 'folder' not in kind:
      pytest.skip('no folder to be copied')
  else:
    (source / 'deep').mkdir(parents=True)
    (source / 'file').write_text('a')
  _make(kind, Path(place), secret)
  with pytest.raises(errors.UserError, match=f'{place}: is .*are refused here'):
    files.copy_directory(source, target)
  assert not target.exists()
  assert not Path('.target.unfinished').exists()


@pytest.mark.parametrize('kind', ['link', 'link to a folder', 'pipe'])
def test_a_link_that_comes_after_the_check_is_not_followed(
  secret, kind, monkeypatch
):
  walk, source = files.walk_files, Path('source')
  for path in (source / 'x', Path('target/old')):
    path.parent.mkdir()
    path.touch()

  def walked(folder):
    for entry in walk(folder):
      Path(entry.path).unlink()
      _make(kind, Path(entry.path), secret)
      yield entry

  monkeypatch.setattr(files, 'walk_files', walked)
  with pytest.raises(errors.UserError, match=r'is .*\(source/x\)'):
    files.copy_directory(source, Path('target'))
  assert [path.name for path in Path('target').iterdir()] == ['old']


def test_a_folder_is_copied_whole(tmp_path):
  source = tmp_path / 'source'
  (source / 'deep').mkdir(parents=True)
  (source / 'deep' / 'a').write_bytes(b'1' * (3 << 20))
  target = tmp_path / 'target'
  for _ in range(2):  # The second time it replaces what is there.
    files.copy_directory(source, target)
    assert (target / 'deep' / 'a').read_bytes() == b'1' * (3 << 20)
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {'source', 'target'}


@pytest.mark.parametrize('place', ['a', '.a.unfinished'])
def test_a_new_folder_follows_no_link(secret, place):
  Path(place).symlink_to(secret.parent)
  with (
    pytest.raises(errors.UserError, match='a: cannot be written'),
    files.new_directory(Path('a')) as unfinished,
  ):
    (unfinished / 'key').write_text('new')


def test_a_new_folder_replaces_the_old_one_or_leaves_it(tmp_path, monkeypatch):
  path = tmp_path / 'a'
  for name in ('old', 'new'):
    with files.new_directory(path) as unfinished:
      (unfinished / name).touch()
  assert [entry.name for entry in path.iterdir()] == ['new']
  rename = Path.rename

  def failing(source, target):
    if source.name == '.a.unfinished':
      raise OSError(28, 'No space left on device')
    return rename(source, target)

  monkeypatch.setattr(Path, 'rename', failing)
  with (
    pytest.raises(errors.UserError, match='No space left'),
    files.new_directory(path) as unfinished,
  ):
    (unfinished / 'newer').touch()
  assert [entry.name for entry in path.iterdir()] == ['new']


def _os_error(number: int, *name: object) -> OSError:
  return OSError(number, os.strerror(number), *name)


@pytest.mark.parametrize(
  ('error', 'message'),
  [
    (
      _os_error(errno.EACCES, 'work/runs'),
      '^work/runs: Permission denied',
    ),
    (_os_error(errno.EACCES, b'work/runs'), '^work/runs: Permission denied; g'),
    (
      _os_error(errno.EISDIR, Path('work/a')),
      '^work/a: Is a directory; give',
    ),
    (_os_error(errno.ENOTDIR, 'work/../work/a'), 'Not a directory; give permi'),
    (_os_error(errno.EMFILE, 'data/a.tsv'), '^data/a.tsv: Too many open files'),
    (
      _os_error(errno.ENOSPC),
      '^work: No space left on device; free',
    ),
    (_os_error(errno.EDQUOT), '^work: Disk quota exceeded; free some space'),
    (
      _os_error(errno.EFBIG, 'elsewhere/a'),
      '^elsewhere/a: File too large; fr',
    ),
    (_os_error(errno.EIO), '^work: Input/output error; give permission'),
  ],
  ids=str,
)
def test_an_error_of_a_place_is_told_in_one_line(error, message):
  for places in (('work', 'data'), (os.path.abspath('work'), 'data')):
    told = message.replace('^work:', f'^{places[0]}:')
    with (
      pytest.raises(errors.UserError, match=told),
      files.report_errors(*map(Path, places)),
    ):
      raise error


@pytest.mark.parametrize(
  'error',
  [
    _os_error(errno.ENOENT, 'elsewhere/a'),
    _os_error(errno.ENOENT, 'workers/a'),
    _os_error(errno.ECONNREFUSED),
    _os_error(errno.EPIPE),
    TimeoutError('of a network'),
  ],
  ids=str,
)
def test_an_error_of_anything_else_passes(error):
  with pytest.raises(OSError) as caught, files.report_errors(Path('work')):
    raise error
  assert caught.value is error


_AS_NOBODY = """
import os, pathlib, sys
from bam_jax import errors, files
from bam_jax.storage import lock
os.setuid(65534)
work = pathlib.Path(sys.argv[1])
def look():
  with files.report_errors(work), lock.lock_directory(work):
    pass
def read():
  with files.report_errors(work):
    (work / 'closed' / 'metrics.jsonl').exists()
for case in (look, read):
  try:
    case()
  except errors.UserError as e:
    print(e)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason='becomes another user')
def test_what_may_not_be_read_is_told(tmp_path):
  """Permissions bind no superuser."""
  work = tmp_path / 'work'
  for folder in ('runs/one', 'closed'):
    (work / folder).mkdir(parents=True)
  for path in (tmp_path, work):
    path.chmod(0o777)
  for folder in ('runs/one', 'closed'):
    (work / folder).chmod(0)
  done = subprocess.run(
    [sys.executable, '-c', _AS_NOBODY, 'work'],
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': str(Path(__file__).parents[1])},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.stdout.splitlines() == [
    'work/runs/one: cannot be read: Permission denied; give permission, or'
    ' choose another folder',
    'work/closed/metrics.jsonl: Permission denied; give permission, or move'
    ' what is in its place, and run the same command again',
  ], done.stderr
