"""The house keeps its one-way street and its style."""

import ast
import importlib
from pathlib import Path
import subprocess
import sys

import pytest

from bam_jax.tasks import kinds

_ROOT = Path(__file__).parent.parent
_PACKAGE = _ROOT / 'bam_jax'

# A folder or module imports only what stands above it.
_ORDER = (
  'trainer_names',
  'errors',
  'escape',
  'files',
  'plain_text',
  'tasks',
  'schema',
  'fields',
  'task_values',
  'variants',
  'searches',
  'config',
  'configs',
  'runtime',
  'core',
  'data',
  'modeling',
  'training',
  'storage',
  'distillation',
  'inference',
  'serving',
  'reporting',
  'experiments',
  'doctor',
  'estimate',
  'api_tasks',
  'api',
  'mistakes',
  'command_line',
  'hf_teacher',
  'commands',
  'main',
)
_WITHOUT_JAX = {*_ORDER[: _ORDER.index('config') + 1], 'data'} - {'tasks'}

_FOR_TYPES = 'typing.TYPE_CHECKING'
# Nothing else needs these folders; only the command line and the API do.
_EXTRAS = {'doctor', 'serving', 'storage'}
_WAYS_IN = {'api', 'command_line', 'hf_teacher', 'commands', 'main'}

_MODULES = sorted(
  path for path in _PACKAGE.rglob('*.py') if path.name != '__init__.py'
)


def _id(path: Path) -> str:
  return str(path.relative_to(_PACKAGE))


def _imports(path: Path) -> set[str]:
  """Full names of all modules that a file imports when it runs."""
  names = set()
  tree = ast.parse(path.read_text())
  for node in tree.body:
    if isinstance(node, ast.If) and ast.unparse(node.test) == _FOR_TYPES:
      node.body = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def _room(path: Path) -> str:
  return path.relative_to(_PACKAGE).parts[0].removesuffix('.py')


@pytest.mark.parametrize('path', _MODULES, ids=_id)
def test_imports_only_what_stands_above(path):
  place = _ORDER.index(_room(path))
  for name in _imports(path):
    if name.startswith('bam_jax.'):
      other = name.split('.')[1]
      assert _ORDER.index(other) <= place, f'{path} imports {name}'


@pytest.mark.parametrize('path', _MODULES, ids=_id)
def test_only_the_ways_in_import_extras(path):
  if _room(path) in _WAYS_IN:
    return
  for name in _imports(path):
    extra = name.split('.')[1] if name.startswith('bam_jax.') else ''
    assert extra not in _EXTRAS or extra == _room(path), f'{path}: {name}'


@pytest.mark.parametrize('path', _MODULES, ids=_id)
def test_heavy_libraries_stay_in_their_rooms(path):
  roots = {name.split('.')[0] for name in _imports(path)}
  if _room(path) in _WITHOUT_JAX:
    assert not roots & {'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'chex'}
  if path.name != 'tfds_source.py':
    assert not roots & {'tensorflow', 'tensorflow_datasets'}
  if _id(path) != 'hf_teacher/model.py':
    assert 'torch' not in roots
  if _room(path) != 'modeling':
    assert not any(name.startswith('flax.linen') for name in _imports(path))


def test_no_code_outside_tasks_asks_for_a_kind():
  """It calls the kind.

  `fields.py` has the default of a configuration, and `trainer_names.py` what
  kinds are called elsewhere.
  """
  names = set(kinds.KINDS)
  for path in _MODULES:
    if _room(path) not in ('tasks', 'fields', 'trainer_names'):
      tree = ast.parse(path.read_text())
      found = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)
      }
      assert not found & names, path


def test_no_cycles_within_a_folder():
  edges = {
    f'bam_jax.{_id(path).removesuffix(".py").replace("/", ".")}': _imports(path)
    for path in _MODULES
  }
  done: set[str] = set()

  def visit(name: str, above: tuple[str, ...]) -> None:
    assert name not in above, ' -> '.join((*above, name))
    if name in done or name not in edges:
      return
    for other in edges[name]:
      visit(other, (*above, name))
    done.add(name)

  for name in edges:
    visit(name, ())


@pytest.mark.parametrize('path', _MODULES, ids=_id)
def test_a_file_holds_one_idea(path):
  assert len(path.read_text().splitlines()) <= 450
  assert 'util' not in path.name


@pytest.mark.parametrize(
  'command', [['check'], ['format', '--check']], ids=['lint', 'format']
)
def test_ruff(command):
  result = subprocess.run(
    [sys.executable, '-m', 'ruff', *command, '.'],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
  'path',
  sorted(
    path
    for folder in ('benchmarks', 'configs', 'docs', 'scripts')
    for path in (_ROOT / folder).rglob('*.py')
  ),
  ids=lambda path: str(path.relative_to(_ROOT)),
)
def test_scripts_use_what_the_package_has(path):
  """Most scripts need data or a GPU, so no test runs them."""
  tree = ast.parse(path.read_text())
  modules = {
    alias.asname or alias.name: f'{node.module}.{alias.name}'
    for node in tree.body
    if isinstance(node, ast.ImportFrom)
    and (node.module or '').partition('.')[0] == 'bam_jax'
    for alias in node.names
  }
  for node in ast.walk(tree):
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
      module = modules.get(node.value.id)
      if module:
        found = importlib.import_module(module)
        assert hasattr(found, node.attr), f'{module}.{node.attr}'
