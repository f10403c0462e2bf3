"""Exact match and F1 of answers. Oracle: cases worked by hand.

The definitions are those of SQuAD's evaluate-v2.0.py: lower case, punctuation
and articles out, white space as single blanks; then words as a bag.
"""

import doctest

import pytest

from bam_jax.tasks import squad_metrics


@pytest.mark.parametrize(
  ('predicted', 'answers', 'exact', 'f1'),
  [
    ('Denver Broncos', ['Denver Broncos', 'The Denver Broncos!'], 1, 1),
    ('the  denver\tBRONCOS.', ['Denver Broncos'], 1, 1),
    # 1 of 1 word, 1 of 2: 2 · 1 · ½ / 1½.
    ('Broncos', ['Denver Broncos'], 0, 2 / 3),
    # Both share 2 words; 2 of 3 and 2 of 4: 2 · ⅔ · ½ / (⅔ + ½).
    ('x y z', ['x y v w'], 0, 4 / 7),
    # A word counts as often as both have it: 1 of 2, 1 of 1.
    ('very very', ['very'], 0, 2 / 3),
    # The best of the answers, for each metric by itself.
    ('in 1969', ['1969', 'in the year 1969'], 0, 0.8),
    ('cat', ['dog'], 0, 0),
    # Punctuation goes without a blank in its place.
    ('U.S.', ['us'], 1, 1),
    ('well-known', ['well known'], 0, 0),
    # Only whole words are articles.
    ('another theme', ['other me'], 0, 0),
    # No answer: it counts as the empty one.
    ('', [], 1, 1),
    ('something', [], 0, 0),
    ('', ['something'], 0, 0),
    # A gold answer of which nothing is left is none.
    ('', ['the'], 1, 1),
    ('the', ['something'], 0, 0),
    ('a', [], 1, 1),
  ],
)
def test_cases_by_hand(predicted, answers, exact, f1):
  best = squad_metrics.best
  assert best(squad_metrics.exact_match, predicted, answers) == exact
  assert best(squad_metrics.f1, predicted, answers) == pytest.approx(f1)


def test_examples_in_docstrings():
  result = doctest.testmod(squad_metrics)
  assert result.attempted == 2
  assert result.failed == 0
