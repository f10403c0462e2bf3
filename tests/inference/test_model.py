"""Texts of any tasks at once.

Oracle: the Flax module on each example alone, its tokens put together here.
"""

import itertools

import numpy as np
import pytest
import scipy.special

from bam_jax.tasks import demo
from tests.serving import tiny_model

_SINGLE, _PAIR = 'demo_sentiment', 'demo_similarity'


def _texts(task: str, count: int) -> list[tuple[str, ...]]:
  return [
    (row.text_a,) if row.text_b is None else (row.text_a, row.text_b)
    for row in demo.generate(task, 'train')[:count]
  ]


def _expected(tiny, task, texts, keep=None):
  """Logits of texts, each of which keeps some tokens."""
  tokenizer = tiny.encoder.tokenizer
  ids, types = [tokenizer.cls_id], [0]
  for number, (text, left) in enumerate(
    zip(texts, keep or (None,) * len(texts), strict=True)
  ):
    own = tokenizer.encode([text])[0].tolist()[:left]
    ids += [*own, tokenizer.sep_id]
    types += [number] * (len(own) + 1)
  return tiny.logits(ids, types, task)


def _score(result) -> float:
  return result.prediction.said['score']


@pytest.fixture(scope='module')
def tiny():
  return tiny_model.make()


def test_mixed_tasks_in_one_batch(tiny):
  by_task = {task: _texts(task, 30) for task in (_SINGLE, _PAIR)}
  encoded = {t: tiny.model.encode(t, texts) for t, texts in by_task.items()}
  mixed = list(itertools.chain(*zip(encoded[_SINGLE], encoded[_PAIR])))
  found = tiny.model.predict(mixed)
  for result, texts in zip(found[::2], by_task[_SINGLE], strict=True):
    probs = scipy.special.softmax(_expected(tiny, _SINGLE, texts))
    said = result.prediction.said
    assert list(said['probabilities']) == ['negative', 'positive']
    np.testing.assert_allclose(
      list(said['probabilities'].values()), probs, atol=1e-5
    )
    assert said['label'] == ('negative', 'positive')[probs.argmax()]
  for result, texts in zip(found[1::2], by_task[_PAIR], strict=True):
    (logit,) = _expected(tiny, _PAIR, texts)
    assert _score(result) == pytest.approx(5 / (1 + np.exp(-logit)), abs=1e-4)
  # They differ, so that a wrong order would show.
  assert len({round(_score(r), 3) for r in found[1::2]}) > 20
  assert len({round(r.prediction.probabilities[0], 3) for r in found[::2]}) > 20


def test_what_is_too_long_is_cut_and_told(tiny):
  room = tiny_model.MAX_LENGTH - 2
  texts = [('dog ' * (room + extra),) for extra in (0, 1, 1000)]
  found = tiny.model.predict(tiny.model.encode(_SINGLE, texts))
  assert [r.truncated for r in found] == [False, True, True]
  probs = [r.prediction.probabilities for r in found]
  np.testing.assert_allclose(probs[1:], probs[:1] * 2, atol=1e-6)
  pair = ('dog ' * 50, 'cat ' * 3)
  (result,) = tiny.model.predict(tiny.model.encode(_PAIR, [pair]))
  assert result.truncated
  (logit,) = _expected(tiny, _PAIR, pair, (tiny_model.MAX_LENGTH - 6, None))
  assert _score(result) == pytest.approx(5 / (1 + np.exp(-logit)), abs=1e-4)


def test_nothing_is_compiled_after_the_start(tiny):
  tiny.model.compile()
  before = tiny.setup.programs.compilations
  assert tiny.model.sizes == [8, 16, 32]  # Of eight devices.
  for count in (1, 40, 100, 500):
    texts = _texts(_SINGLE, 100) * (count // 100 + 1)
    found = tiny.model.predict(tiny.model.encode(_SINGLE, texts[:count]))
    assert len(found) == count
  assert tiny.setup.programs.compilations == before
