"""Exact match and F1 of answers, as in the official SQuAD evaluation.

The sources are Rajpurkar et al. 2016 and 2018. An empty answer matches only an
empty answer.
"""

from collections import Counter
from collections.abc import Callable, Sequence
import re
import string

_ARTICLES = re.compile(r'\b(a|an|the)\b')
_NO_PUNCTUATION = str.maketrans('', '', string.punctuation)


def normalise(text: str) -> str:
  """Lowercases a text and removes punctuation, articles and extra blanks.

  >>> normalise('The  Eiffel-Tower, a tower!')
  'eiffeltower tower'
  """
  text = text.lower().translate(_NO_PUNCTUATION)
  return ' '.join(_ARTICLES.sub(' ', text).split())


def exact_match(predicted: str, gold: str) -> float:
  """Returns 1 if both answers are equal after `normalise`, else 0."""
  return float(normalise(predicted) == normalise(gold))


def f1(predicted: str, gold: str) -> float:
  """F1 of the words of two answers, 0-1.

  >>> f1('the old tower', 'a tower of old days')
  0.6666666666666666
  """
  ours, theirs = normalise(predicted).split(), normalise(gold).split()
  if not ours or not theirs:
    return float(ours == theirs)
  same = (Counter(ours) & Counter(theirs)).total()
  if not same:
    return 0.0
  precision, recall = same / len(ours), same / len(theirs)
  return 2 * precision * recall / (precision + recall)


def best(
  metric: Callable[[str, str], float], predicted: str, answers: Sequence[str]
) -> float:
  """Best score of a prediction over the gold answers.

  Gold answers that are empty after `normalise` are left out. If none is left,
  the prediction is compared with the empty text.
  """
  known = [answer for answer in answers if normalise(answer)] or ['']
  return max(metric(predicted, answer) for answer in known)
