"""The documents' commands, spelt out by bash, and the files that they show."""

import ast
from collections.abc import Iterator
from pathlib import Path
import re
import subprocess
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = sorted(
  path
  for pattern in ('*.md', 'docs/**/*.md', 'benchmarks/*.md', '.github/**/*.md')
  for path in ROOT.glob(pattern)
  # Written by the report, from another work directory.
  if path.name != 'report.md'
)
_SCRIPTS = (
  ROOT / 'bam_jax' / 'main.py',
  *sorted(ROOT.glob('configs/*.py')),
  *sorted(ROOT.glob('benchmarks/*.py')),
  ROOT / 'bam_jax' / 'hf_teacher' / 'command.py',
  *sorted(ROOT.glob('scripts/*.py')),
  ROOT / 'docs' / 'results' / 'collect.py',
)
_FENCE = re.compile(r'^```(\w*)\n(.*?)^```$', re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r'(?<!`)`([^`]+)`(?!`)')
_THERE = re.compile(r'^\| there \|.*\n(?:\|.*\n)*', re.MULTILINE)
_FIRST_CELL = re.compile(r'^\|[^|]*', re.MULTILINE)
_PROGRAMS = (
  'python', 'python3', 'pip', 'docker', 'pytest', 'ruff', 'curl', 'bam-jax',
  'bam-jax-hf-teacher',
)  # fmt: skip
_COMMAND = re.compile(
  r'^ +((?:python|pip|launch/|bam-jax)\S* (?:\\\n|.)*)', re.MULTILINE
)
_INLINE = re.compile(
  r'(\w+=\S+ )?(python|pytest|pip|launch/\w+\.sh|bam-jax)\b.* '
)
# Each call is told of as a line of its own; arguments hold no line break.
# What is piped into it is read to the end: who writes it must not fail.
_RECORDER = """#!/bin/bash
if [[ -p /dev/stdin ]]; then while read -r _; do :; done; fi
{ printf '%s\\x1f' "$0" "$@"; printf '\\n'; } >>"$RECORD"
"""


class Command(NamedTuple):
  """A command as a shell understands it.

  Attributes:
    page: the file that it stands in, below the root.
    words: the program and its arguments.
  """

  page: str
  words: tuple[str, ...]

  def after(self, *words: str) -> tuple[str, ...] | None:
    """The arguments after some words in a row; None where they are not."""
    for i in range(len(self.words)):
      if self.words[i : i + len(words)] == words:
        return self.words[i + len(words) :]
    return None


def name_of(path: Path) -> str:
  """A file as the documents name it."""
  return str(path.relative_to(ROOT))


def fences(path: Path) -> list[tuple[str, str]]:
  """(language, text) of each block of a page."""
  return _FENCE.findall(path.read_text())


def spans(path: Path) -> list[str]:
  """What stands in backquotes on a page, outside of blocks, each in a line.

  Not what is other programs': the first column of a table, headed `there`.
  """
  text = _FENCE.sub('', path.read_text())
  text = _THERE.sub(lambda table: _FIRST_CELL.sub('', table[0]), text)
  return [' '.join(span.split()) for span in _SPAN.findall(text)]


def files(path: Path) -> dict[str, str]:
  """Name -> text of the files that a page shows.

  Each is a block that is no shell's, below a line that is its name in
  backquotes and a colon.
  """
  shown = re.findall(
    r'^`([\w./]+)`:\n\n```(?!sh|bash)\w*\n(.*?)^```$',
    path.read_text(),
    re.DOTALL | re.MULTILINE,
  )
  return dict(shown)


def _texts() -> Iterator[tuple[str, str]]:
  """(page, text for bash) of all documents."""
  for path in PAGES:
    for language, text in fences(path):
      if language in ('sh', 'bash'):
        yield name_of(path), text
    for span in spans(path):
      # A program alone is a name.
      if _INLINE.match(span):
        yield name_of(path), span
  for path in _SCRIPTS:
    docstring = ast.get_docstring(ast.parse(path.read_text()), clean=False)
    for text in _COMMAND.findall(docstring or ''):
      # [--option] may be given.
      yield name_of(path), re.sub(r'\[(--[^\]]*)\]', r'\1', text)


def spelt_out(place: Path, only: Path | None = None) -> list[Command]:
  """All commands of the documents, with loops, variables and quotes resolved.

  Args:
    place: an empty folder for programs that do nothing but tell how they were
      called.
    only: of this document; None: of all.
  """
  recorder = place / 'recorder'
  recorder.write_text(_RECORDER)
  recorder.chmod(0o755)
  for program in _PROGRAMS:
    for folder in ('bin', '.venv/bin'):
      (place / folder).mkdir(parents=True, exist_ok=True)
      (place / folder / program).symlink_to(recorder)
  (place / 'launch').mkdir()
  for script in ROOT.glob('launch/*.sh'):
    (place / 'launch' / script.name).symlink_to(recorder)
  commands = []
  for number, (page, text) in enumerate(_texts()):
    if only is not None and page != name_of(only):
      continue
    record = place / f'{number}.txt'
    done = subprocess.run(
      ['/bin/bash', '-euo', 'pipefail', '-c', text],
      cwd=place,
      env={
        'GLUE_DIR': '/data/glue',
        'PATH': str(place / 'bin'),
        'RECORD': str(record),
      },
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, f'{page}: {text}\n{done.stderr}'
    for line in record.read_text().splitlines():
      commands.append(Command(page, tuple(line.split('\x1f')[:-1])))
  return commands
