"""The guides' commands run: dry runs at once, small plans by `-m fault`."""

import os
from pathlib import Path
import re
import subprocess
import sys

import launching
import pytest

_GUIDES = sorted((launching.ROOT / 'docs' / 'guides').glob('*.md'))
# A block whose commands all are dry runs, and one that trains.
_BLOCKS = [
  pytest.param(
    block,
    id=f'{path.stem}-{n}',
    marks=[] if '--dry-run' in block else pytest.mark.fault,
  )
  for path in _GUIDES
  for n, block in enumerate(
    re.findall(r'```bash\n(.*?)```', path.read_text(), re.DOTALL)
  )
]


@pytest.mark.parametrize('block', _BLOCKS)
def test_a_block_runs(block, tmp_path):
  """In a folder that sees the checkout but keeps its own work/."""
  for name in ('bam_jax', 'configs', 'launch', 'tests'):
    (tmp_path / name).symlink_to(launching.ROOT / name)
  done = subprocess.run(
    ['bash', '-euo', 'pipefail', '-c', block],
    cwd=tmp_path,
    env=os.environ
    | {
      'GLUE_DIR': 'a b',
      'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  work = tmp_path / 'work'
  if '--dry-run' in block:
    assert done.stdout
    assert not work.exists()
  else:
    assert list(work.rglob('report.html'))


@pytest.mark.parametrize('path', _GUIDES, ids=lambda path: path.stem)
def test_what_a_guide_names_is_there_and_in_the_readme(path):
  text = path.read_text()
  for name in re.findall(r'(?<![/\w])(?:launch|configs)/[\w.]+', text):
    assert (launching.ROOT / name.rstrip('.')).is_file(), name
  for link in re.findall(r'\]\((?!https)([^)#]+)', text):
    assert (path.parent / link).is_file(), link
  readme = (launching.ROOT / 'README.md').read_text()
  assert f'(docs/guides/{path.name})' in readme
