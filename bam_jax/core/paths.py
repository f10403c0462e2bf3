"""Tables that map parameter paths to values; the first matching row wins."""

from collections.abc import Callable, Sequence
import re
from typing import Any, TypeVar

import jax

V = TypeVar('V')


def lookup(table: Sequence[tuple[str, V]], path: str) -> V:
  """Finds the value of the first table row that matches a path.

  Args:
    table: rows of (regular expression, value).
    path: keys joined by `/`, such as `encoder/layers/output/bias`.

  Raises:
    ValueError: no row matches.
  """
  for pattern, value in table:
    if re.search(pattern, path):
      return value
  raise ValueError(
    f'no pattern of the table matches the parameter {path!r}; add a row to'
    f' {[pattern for pattern, _ in table]}'
  )


def map_paths(function: Callable[[str, Any], V], tree: Any) -> Any:
  """Applies `function(path, leaf)` to each leaf of a tree."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: function(
      jax.tree_util.keystr(path, simple=True, separator='/'), leaf
    ),
    tree,
  )
