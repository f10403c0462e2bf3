"""The commands, flags, fields and files that the documents name are there."""

import argparse
import configparser
import dataclasses
import importlib.util
import os
from pathlib import Path
import re
import subprocess
import sys
from unittest import mock

from absl import flags
from absl.testing import flagsaver
import documents
import pytest

from bam_jax import command_line
from bam_jax import config as config_lib
from bam_jax.data import registry
from bam_jax.experiments import runs as runs_lib
from bam_jax.hf_teacher import command as hf_teacher

# ml_collections loads a config file in the old way.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module')

_MENTIONED = re.compile(r'--[a-z][\w.-]*')
_FILE = re.compile(
  r'(?:bam_jax|configs|launch|docs|tests|benchmarks|\.ci|\.github)'
  r'/[\w./*-]*'
)
_GROUPS = {
  field.name: {sub.name for sub in dataclasses.fields(field.default)}
  for field in dataclasses.fields(config_lib.Config)
  if dataclasses.is_dataclass(field.default)
}
_FIELDS = {field.name for field in dataclasses.fields(config_lib.Config)}
_FIELD = re.compile(
  r'(?<![\w./])(?:config\.)?(?:(' + '|'.join(_GROUPS) + r')\.)(\w+\b)(?!\{)'
)
# Files that are called as a group of fields is.
_SUFFIXES = {'py', 'tsv', 'json', 'jsonl', 'md', 'txt'}
# Of other programs, named beside ours.
_FOREIGN = {'--build-arg', '--no-deps', '--no-show-source'}


@pytest.fixture(scope='module')
def commands(tmp_path_factory) -> list[documents.Command]:
  return documents.spelt_out(tmp_path_factory.mktemp('shell'))


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
  """A folder that sees the checkout and the files that the guides show."""
  for path in documents.ROOT.iterdir():
    if path.name != 'work' and not path.name.startswith('.'):
      (tmp_path / path.name).symlink_to(path)
  for page in documents.PAGES:
    for name, text in documents.files(page).items():
      (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
      # Not a file of the checkout, through one of the links.
      assert (tmp_path / name).resolve().is_relative_to(tmp_path.resolve())
      (tmp_path / name).write_text(text)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def _parsed(arguments: tuple[str, ...]) -> None:
  """Lets the program take its arguments, as far as it reads no data."""
  # ml_collections would load a config into the module of the last one.
  sys.modules.pop('config_config', None)
  argv = ['bam_jax', *arguments]
  # From sys.argv it takes the fields that are to become flags.
  with mock.patch.object(sys, 'argv', argv), flagsaver.flagsaver():
    assert command_line.parse(argv) == ['bam_jax']
    if '--help' not in arguments:
      command_line.check(['bam_jax'])
    # Otherwise the work directory has the settings.
    if command_line.CONFIG.value is not None:
      config = config_lib.from_config_dict(command_line.CONFIG.value)
      registry.resolve(config)
      groups = {run.group for run in runs_lib.plan_runs(config)}
      assert command_line.GROUP.value in {None, *groups}
    if command_line.MODE.value == 'merge':
      assert command_line.FROM.value
  flags.FLAGS.unparse_flags()


def _of_installed(
  program: str, commands: list[documents.Command]
) -> list[tuple[str, ...]]:
  """The arguments of each call of a command that is installed."""
  return [c.words[1:] for c in commands if Path(c.words[0]).name == program]


def test_the_programs_commands_parse(commands, place):
  found = [c.after('-m', 'bam_jax.main') for c in commands]
  found += _of_installed('bam-jax', commands)
  found = [arguments for arguments in found if arguments is not None]
  assert len(found) > 30
  for arguments in found:
    _parsed(arguments)


def test_launch_scripts_take_their_commands(commands, place):
  """Their own options by a dry run, what they pass on by the program."""
  found = [c for c in commands if c.words[0].startswith('launch/')]
  assert len(found) > 9
  # `python`, as in an environment that is activated.
  path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
  for script, *arguments in (command.words for command in found):
    dry = [] if '--dry-run' in arguments else ['--dry-run']
    done = subprocess.run(
      ['bash', script, *dry, *arguments],
      env=os.environ | {'PATH': path},
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, f'{script} {arguments}: {done.stderr}'
    # CONFIG and what follows it; launch/again.sh takes a whole command.
    for n, config in enumerate(arguments):
      if config.endswith('.py') and not config.startswith('--'):
        _parsed((f'--config={config}', *arguments[n + 1 :]))


def test_the_teachers_command_takes_its_arguments(commands, place):
  found = _of_installed('bam-jax-hf-teacher', commands)
  assert len(found) > 3
  for arguments in found:
    sys.modules.pop('config_config', None)
    argv = ['hf_teacher', *arguments]
    with mock.patch.object(sys, 'argv', argv), flagsaver.flagsaver():
      hf_teacher.parse(argv)
    flags.FLAGS.unparse_flags()


class _Parsed(Exception):
  """The arguments are taken."""


def test_benchmarks_take_their_commands(commands, monkeypatch):
  parser = argparse.ArgumentParser
  parse, parse_known = parser.parse_args, parser.parse_known_args

  def parse_only(self, *arguments):
    with monkeypatch.context() as inner:
      inner.setattr(parser, 'parse_known_args', parse_known)
      parse(self, *arguments)
    raise _Parsed

  def parse_some(self, *arguments):
    _, rest = parse_known(self, *arguments)
    # The rest is for the program.
    _parsed(tuple(rest))
    raise _Parsed

  monkeypatch.setattr(parser, 'parse_args', parse_only)
  monkeypatch.setattr(parser, 'parse_known_args', parse_some)
  seen = set()
  for command in commands:
    name = next((w for w in command.words if w.startswith('benchmarks.')), '')
    if not name:
      continue
    assert importlib.util.find_spec(name), command
    seen.add(name)
    arguments = command.after('-m', name)
    # Without arguments it is the name of a program, which may need torch.
    if arguments:
      monkeypatch.setattr(sys, 'argv', [name, *arguments])
      with pytest.raises(_Parsed):
        importlib.import_module(name).main()
  assert len(seen) > 6


def test_other_programs_find_what_they_are_given(commands):
  setup = configparser.ConfigParser()
  setup.read(documents.ROOT / 'setup.cfg')
  extras = set(setup['options.extras_require'])
  for path in documents.ROOT.glob('bam_jax/**/*.py'):
    assert {*re.findall(r'bam-jax\[(\w+)\]', path.read_text())} <= extras
  for command in commands:
    program = Path(command.words[0]).name
    words = command.words[1:]
    if program.startswith('python') and words[0] == '-m':
      assert words[1].split('.')[0] in {
        'venv', 'pytest', 'bam_jax', 'benchmarks', 'pdoc'
      }, command  # fmt: skip
    elif program.startswith('python'):
      assert (documents.ROOT / words[0]).is_file(), command
    elif program == 'pip':
      for word in words:
        if found := re.fullmatch(r'(?:\.|bam-jax)\[(.+)\]', word):
          assert {*found[1].split(',')} <= extras, command
        elif word.endswith('.txt'):
          assert (documents.ROOT / word).is_file(), command
    for word in words:
      if word.startswith('tests/') or word == 'launch/Dockerfile':
        assert (documents.ROOT / word).exists(), command


@pytest.mark.parametrize('page', documents.PAGES, ids=documents.name_of)
def test_flags_files_and_fields_that_a_page_names_are_there(page):
  known = _FOREIGN.copy()
  for pattern in (
    'launch/**/*',
    'benchmarks/*.py',
    'docs/results/*.py',
  ):
    for path in documents.ROOT.glob(pattern):
      if path.is_file():
        known |= {*_MENTIONED.findall(path.read_text())}
  known |= {f'--{name}' for name in flags.FLAGS}
  for span in documents.spans(page):
    for flag in _MENTIONED.findall(span):
      if not flag.startswith('--config.'):
        assert flag in known, f'{flag} is no flag'
    for mode in re.findall(r'--mode=(\w+)', span):
      assert mode in command_line.MODES
    for name in _FILE.findall(span):
      name = name.rstrip('.')
      assert list(documents.ROOT.glob(name)), f'{name} is no file'
    for group, field in _FIELD.findall(span):
      if field not in _SUFFIXES:
        assert field in _GROUPS[group], f'{group}.{field} is no field'
    for field in re.findall(r'(?<![\w./])config\.(\w+)', span):
      # FIELD stands for any.
      if field not in _SUFFIXES and not field.isupper():
        assert field in _FIELDS, f'config.{field} is no field'


def test_configs_that_pages_show_hold_together():
  shown = [
    text
    for page in documents.PAGES
    for language, text in documents.fences(page)
    if language == 'python' and 'def get_config' in text
  ]
  assert shown
  for text in shown:
    names: dict[str, object] = {}
    exec(compile(text, 'shown', 'exec'), names)
    registry.resolve(config_lib.from_config_dict(names['get_config']()))
