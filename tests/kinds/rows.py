"""Generated rows of the kinds that the demo suite lacks, as files."""

import json
from pathlib import Path

import numpy as np

_SIZES = {'train': 48, 'dev': 16, 'test': 6}
# Words of the demo vocabulary; one with a capital is spelt by its letters.
_PEOPLE = ('doctor', 'teacher', 'lawyer', 'singer', 'Zoe')
_THINGS = ('car', 'boat', 'house', 'church', 'soup')
_MOODS = {'joy': 'lovely', 'anger': 'nasty', 'fear': 'horrible'}


def write(folder: Path, times: int = 1) -> None:
  """Writes every file that `tests.configs.kinds` names.

  `times` is a factor of the lengths of the long texts.
  """
  for split, size in _SIZES.items():
    rng = np.random.default_rng(list(_SIZES).index(split))
    for name, make in _FILES.items():
      path = folder / name.format(split)
      path.parent.mkdir(exist_ok=True)
      path.write_text(make(rng, size, split != 'test', times))


def _moods(
  rng: np.random.Generator, size: int, labelled: bool, times: int
) -> str:
  lines = []
  for _ in range(size):
    chosen = [mood for mood in _MOODS if rng.integers(2)]
    words = [_MOODS[mood] for mood in chosen]
    text = f'the {rng.choice(_THINGS)} was {" and ".join(words)} .'
    row = {'text': ' '.join([text] * times)}
    lines.append(json.dumps(row | ({'moods': chosen} if labelled else {})))
  return '\n'.join(lines) + '\n'


def _names(
  rng: np.random.Generator, size: int, labelled: bool, times: int
) -> str:
  """Sentences of one word up to more than a window holds."""
  blocks = ['-DOCSTART- O\n'] if labelled else []
  for number in range(size):
    words = []
    for _ in range(1 + 9 * times * (number % 7 == 3) + number % 2):
      words += [('the', 'O'), (rng.choice(_PEOPLE), 'B-PER')]
      words += [('Smith', 'I-PER')] * rng.integers(2)
      words += [('bought', 'O'), ('a', 'O'), (rng.choice(_THINGS), 'B-OBJ')]
    chosen = [' '.join(word if labelled else word[:1]) for word in words]
    blocks.append('\n'.join(chosen) + '\n')
  return '\n'.join(blocks)


def _answers(
  rng: np.random.Generator, size: int, labelled: bool, times: int
) -> str:
  """SQuAD 2.0; two questions about each context, of one to many windows."""
  paragraphs = []
  for number in range(size // 2):
    sentences = []
    for _ in range(1 + 8 * times * (number % 4 == 1)):
      person, thing = rng.choice(_PEOPLE), rng.choice(_THINGS)
      sentences.append(f'the {person} bought a {thing} .')
    context = '  '.join(sentences)
    questions = []
    for person in rng.choice(_PEOPLE, 2, replace=False):
      sentence = f'the {person} bought a '
      entry = {'id': f'{number}-{person}', 'question': f'what of {person} ?'}
      start = context.find(sentence) + len(sentence)
      if labelled:
        known = sentence in context
        answer = context[start : context.find(' .', start)]
        found = [{'text': answer, 'answer_start': start}] * 2
        entry |= {'is_impossible': not known, 'answers': found if known else []}
      questions.append(entry)
    paragraphs.append({'context': context, 'qas': questions})
  return json.dumps({'version': 'v2.0', 'data': [{'paragraphs': paragraphs}]})


_FILES = {
  'moods/{}.jsonl': _moods,
  'names/{}.conll': _names,
  'things/{}.json': _answers,
}
