"""Tables over paths. Oracle: rows by hand."""

import numpy as np
import pytest

from bam_jax.core import paths

TABLE = ((r'^layer_(\d+)/bias$', 'bias'), (r'^layer_(\d+)/', 'layer'))


@pytest.mark.parametrize(
  ('path', 'value'),
  [('layer_3/bias', 'bias'), ('layer_12/kernel', 'layer')],
)
def test_the_first_row_that_matches_wins(path, value):
  assert paths.lookup(TABLE, path) == value


def test_a_path_without_a_row_raises():
  with pytest.raises(ValueError, match='head/bias'):
    paths.lookup(TABLE, 'head/bias')


def test_paths_of_nested_trees():
  tree = {'a': [np.zeros(1), {'b': np.ones(2)}]}
  named = paths.map_paths(lambda path, leaf: (path, leaf.size), tree)
  assert named == {'a': [('a/0', 1), {'b': ('a/1/b', 2)}]}
