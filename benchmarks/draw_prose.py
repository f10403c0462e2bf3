"""Draws docstrings and error messages, for a reader who has not seen the code.

  python -m benchmarks.draw_prose --seed=0

Prints the first lines of 80 docstrings and 20 messages of `UserError`, drawn
from the whole package. The reader counts those that had to be read twice.
"""

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_PACKAGE = Path(__file__).parents[1] / 'bam_jax'
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def docstrings(tree: ast.Module) -> Iterator[str]:
  """Yields the name and first line of every docstring of a module."""
  for node in ast.walk(tree):
    if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
      name = getattr(node, 'name', 'module')
      yield f'{name}: {text.splitlines()[0]}'


def messages(tree: ast.Module) -> Iterator[str]:
  """Yields every message that is written where a `UserError` is raised."""
  for node in ast.walk(tree):
    if (
      isinstance(node, ast.Call)
      and ast.unparse(node.func).endswith('UserError')
      and node.args
      and isinstance(node.args[0], ast.JoinedStr | ast.Constant)
    ):
      yield ast.unparse(node.args[0])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--seed', type=int, required=True)
  args = parser.parse_args()
  rng = np.random.default_rng(args.seed)
  files = sorted(_PACKAGE.rglob('*.py'))
  trees = {file: ast.parse(file.read_text()) for file in files}
  for find, count in ((docstrings, 80), (messages, 20)):
    lines = [
      f'{file.relative_to(_PACKAGE)}: {line}'
      for file, tree in trees.items()
      for line in find(tree)
    ]
    for number, i in enumerate(rng.choice(len(lines), count, False), 1):
      print(f'{number:2}. {lines[i]}')
    print()


if __name__ == '__main__':
  main()
