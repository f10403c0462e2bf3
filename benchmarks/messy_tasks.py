"""Ten small tasks in files as messy as users' own, from raw rows to a model.

  python -m benchmarks.messy_tasks work/messy_rows

Writes generated rows, and calls the command line to train the tasks of
`benchmarks/configs/messy_tasks.py` on them, to predict their test files and to
export the student. Every label follows from words of its text, so that a model
of rows that were read rightly learns its task; some of these words are in no
training row.
"""

import argparse
from collections.abc import Callable, Sequence
import csv
import gzip
import io
import itertools
import json
from pathlib import Path
import random
import subprocess
import sys
from typing import Any, NamedTuple
import zlib

_ROOT = Path(__file__).parents[1]
_CONFIG = 'benchmarks/configs/messy_tasks.py'

_NAMES = 'Anna Bo Carla David Emma Farid Greta Hugo Ines Jonas Lena Omar'
_PLACES = 'Bergen Cairo Delhi Geneva Lagos Lima Lisbon Osaka Oslo Quito'
_DAYS = 'Monday Tuesday Wednesday Thursday Friday Saturday Sunday'
_THINGS = 'bicycle boat camera carpet lamp piano ring tent'
_GRADES = (
  'useless broken terrible',
  'weak slow disappointing',
  'ordinary average usual',
  'good solid pleasant',
  'perfect brilliant wonderful',
)
_URGENCY = {
  'low': 'no hurry|whenever you like|just a remark',
  'normal': 'this week|as usual|by Friday',
  'high': 'at once|all is down|an emergency',
}
_REASONS = {
  'accept': 'was broken in the box|arrived with a crack|never worked',
  'refuse': 'has the wrong colour|was cheaper elsewhere|bored me soon',
}
_TOPICS = {
  'food': 'the soup|tasty|cold fish',
  'place': 'noisy|a lovely view|the garden',
  'price': 'expensive|cheap|the bill',
  'staff': 'rude|friendly|the waiter',
}
_CLAUSES = {
  'lease': 'the tenant shall pay the rent of the flat',
  'loan': 'the bank shall charge interest on the loan',
  'work': 'the employee shall receive wages for the job',
}
_FILLER = (
  'the parties agree to all of the above|notice must be given in writing'
  '|this page was left empty|terms have the meaning given in section two'
  '|a copy has the force of the original'
)
_OPINIONS = {
  'gut': 'großartig|köstlich|wunderschön|sehr nützlich|preiswürdig',
  'schlecht': 'furchtbar|enttäuschend|völlig überteuert|kaputt|hässlich',
}
_CARDS = {
  'fine': 'her card',
  'fraud': 'a stolen card|a forged card|a lost card',
}
# No training row has these, so that an encoder must know what they mean.
_NEW = (
  'terrible', 'disappointing', 'usual', 'pleasant', 'wonderful', 'a remark',
  'by Friday', 'an emergency', 'never worked', 'bored me', 'cold fish',
  'the garden', 'the bill', 'the waiter', 'wunderschön', 'hässlich', 'lost',
)  # fmt: skip
_EMOJI = '😀 😡 👍🏽 👩‍👩‍👧 🎉 🇩🇪 ❤️ ☕'
_VERBS = (
  'book cancel change close find lock move open order pay print rate renew'
  ' return share'
)
_OBJECTS = (
  'account bill camera card contract flight parcel password room ticket'
)
_WORDS = {
  'ADJ': 'old small red quiet new',
  'NOUN': 'dog cat house train river',
  'ADV': 'often never slowly gladly',
  'VERB': 'sees follows likes leaves finds',
}

_Row = dict[str, Any]


def _pick(rng: random.Random, choices: str) -> str:
  return rng.choice(choices.split('|' if '|' in choices else None))


def _mail(rng: random.Random, label: str) -> _Row:
  thing, said = _pick(rng, _THINGS), _pick(rng, _URGENCY[label])
  return {
    'sent by': 'post',
    'subject': f'A "{thing}", {_pick(rng, _PLACES)}',
    'body': f'Hello,\n{_pick(rng, _NAMES)} here: {said}, please.\n\nThanks',
    'urgency': label,
  }


def _stars(rng: random.Random, label: int) -> _Row:
  grade = _pick(rng, _GRADES[label - 1])
  text = f'The {_pick(rng, _THINGS)} in {_pick(rng, _PLACES)} was {grade}'
  return {
    'entry': {'text': f'{text}, says {_pick(rng, _NAMES)}.'},
    'annotations': [{'result': {'stars': label}}],
  }


def _answers(rng: random.Random, question: str) -> _Row:
  """Three facts in any order, and a question about one of them."""
  facts = {
    'Who bought it?': ('by ', _pick(rng, _NAMES)),
    'Where was it sold?': ('in ', _pick(rng, _PLACES)),
    'When was it sold?': ('on ', _pick(rng, _DAYS)),
  }
  told = [before + fact for before, fact in facts.values()]
  rng.shuffle(told)
  context = f'A {_pick(rng, _THINGS)} was bought {" ".join(told)}.'
  answer = facts[question][1]
  return {
    'id': f'{zlib.crc32(f"{question} {context}".encode()):08x}',
    'question': question,
    'context': context,
    'answers': [{'text': answer, 'answer_start': context.index(answer)}],
  }


def _intents(rng: random.Random, label: str) -> _Row:
  verb, thing = label.split('_')
  start = _pick(rng, 'please|how do I|I want to|can you|help me to')
  return {
    'utterance': f'{start} {verb} {_pick(rng, "my the this")} {thing}',
    'intent': label,
  }


def _returns(rng: random.Random, label: str) -> _Row:
  text = f'The {_pick(rng, _THINGS)} from {_pick(rng, _PLACES)}'
  return {'text': f'{text} {_pick(rng, _REASONS[label])}.', 'label': label}


def _payments(rng: random.Random, label: str) -> _Row:
  text = f'{_pick(rng, _NAMES)} paid {rng.randrange(10, 1000)} euros for a'
  text += f' {_pick(rng, _THINGS)} in {_pick(rng, _PLACES)} with'
  return {'text': f'{text} {_pick(rng, _CARDS[label])}', 'label': label}


def _visits(rng: random.Random, labels: tuple[str, ...]) -> _Row:
  said = [_pick(rng, _TOPICS[label]) for label in labels] or ['nothing']
  rng.shuffle(said)
  text = f'{_pick(rng, _NAMES)} in {_pick(rng, _PLACES)}: {", ".join(said)}'
  return {'text': text, 'topics': labels}


def _contracts(rng: random.Random, label: str) -> _Row:
  """A document of more than 512 tokens; only its later pages tell the label."""
  clauses = [_pick(rng, _FILLER) for _ in range(80)]
  clauses[24::6] = [_CLAUSES[label]] * len(clauses[24::6])
  return {'body': '. '.join(clauses), 'sort': label}


def _opinions(rng: random.Random, label: str) -> _Row:
  emoji, thing = _pick(rng, _EMOJI), _pick(rng, 'Käse Ausflug Gruß')
  text = f'Für {_pick(rng, _NAMES)} war der {thing} aus {_pick(rng, _PLACES)}'
  text = f'{emoji} {text} {_pick(rng, _OPINIONS[label])}! {emoji * 2}'
  return {'Text': text, 'Urteil': label}


def _names(rng: random.Random, has_place: bool) -> _Row:
  name = [_pick(rng, _NAMES), _pick(rng, 'Berg Li Olsen')]
  words = ['yesterday', *name, 'sold', 'a', _pick(rng, _THINGS)]
  tags = ['O', 'B-PER', 'I-PER', 'O', 'O', 'O']
  if has_place:
    words += ['in', _pick(rng, _PLACES)]
    tags += ['O', 'B-LOC']
  return {'words': words, 'tags': tags}


def _parts(rng: random.Random, first: int) -> _Row:
  tags = ['ADJ', 'NOUN', 'ADV', 'VERB', 'ADJ', 'NOUN'][first:]
  return {'tokens': [_pick(rng, _WORDS[tag]) for tag in tags], 'upos': tags}


def _cells(rows: Sequence[_Row], mark: str) -> str:
  text = io.StringIO()
  writer = csv.DictWriter(text, rows[0], delimiter=mark)
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


def _objects(rows: Sequence[_Row]) -> str:
  return ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)


def _conll(rows: Sequence[_Row]) -> str:
  blocks = ('\n'.join(map(' '.join, zip(*row.values()))) for row in rows)
  return '\n\n'.join(blocks) + '\n'


class _Files(NamedTuple):
  """The files of a task, and what their rows are made of."""

  name: str  # With {} for the split.
  sizes: tuple[int, ...]  # Rows of train, test and, if there is one, dev.
  labels: Sequence  # Each is that of equally many rows, in any order.
  make: Callable[[random.Random, Any], _Row]
  write: Callable[[Sequence[_Row]], str] = _objects


FILES = (
  # As spreadsheet programs write it: with a byte order mark.
  _Files(
    'mail/{}.csv', (200, 20, 100), (*_URGENCY,), _mail,
    lambda rows: '\ufeff' + _cells(rows, ','),
  ),
  _Files('stars/{}.jsonl', (200, 20, 100), range(1, 6), _stars),
  _Files(
    'answers/{}.jsonl', (375, 20),
    ('Who bought it?', 'Where was it sold?', 'When was it sold?'), _answers,
  ),
  _Files(
    'intents/{}.csv', (600, 30, 150),
    [f'{v}_{o}' for v in _VERBS.split() for o in _OBJECTS.split()], _intents,
    lambda rows: _cells(rows, ';'),
  ),
  _Files(
    'returns/{}.tsv', (60, 20, 60), (*_REASONS,), _returns,
    lambda rows: _cells(rows, '\t'),
  ),
  _Files(
    'payments/{}.csv', (500, 50, 500), ('fraud', *['fine'] * 49), _payments,
    lambda rows: _cells(rows, ','),
  ),
  _Files(
    'visits/{}.jsonl', (200, 20, 100),
    [set_ for n in range(4) for set_ in itertools.combinations(_TOPICS, n)],
    _visits,
  ),
  _Files('names/{}.conll', (200, 20, 100), (True, False), _names, _conll),
  _Files('contracts/{}.jsonl.gz', (45, 6, 30), (*_CLAUSES,), _contracts),
  _Files('opinions/{}.jsonl', (200, 20, 100), (*_OPINIONS,), _opinions),
  # The eleventh, which is added later.
  _Files('parts/{}.jsonl', (200, 20, 100), range(3), _parts),
)  # fmt: skip


def write_rows(folder: Path) -> None:
  """Writes the files of all tasks; no row is in two of them."""
  for task in FILES:
    rng, known = random.Random(task.name), set()
    for split, size in zip(('train', 'test', 'dev'), task.sizes):
      labels = list(itertools.islice(itertools.cycle(task.labels), size))
      rng.shuffle(labels)
      rows = []
      banned = _NEW if split == 'train' else ()
      for label in labels:
        row = task.make(rng, label)
        while str(row) in known or any(words in str(row) for words in banned):
          row = task.make(rng, label)
        rows.append(row)
        known.add(str(row))
      path = folder / task.name.format(split)
      path.parent.mkdir(parents=True, exist_ok=True)
      content = task.write(rows).encode()
      is_gzip = path.suffix == '.gz'
      path.write_bytes(gzip.compress(content, mtime=0) if is_gzip else content)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('rows', type=Path, help='folder for the raw files')
  folder = parser.parse_args().rows
  write_rows(folder)
  for mode in ('run', 'predict', 'export'):
    subprocess.run(
      [
        sys.executable, '-m', 'bam_jax.main', f'--config={_CONFIG}',
        f'--config.data.dir={folder.absolute()}', f'--mode={mode}',
      ],
      cwd=_ROOT,
      check=True,
    )  # fmt: skip


if __name__ == '__main__':
  main()
