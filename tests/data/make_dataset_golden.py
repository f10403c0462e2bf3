"""Writes golden/saved_dataset, two splits by Hugging Face's library, and rows.

Needs the package datasets:
  python tests/data/make_dataset_golden.py
"""

import json
from pathlib import Path
import shutil

import datasets

FOLDER = Path(__file__).parent / 'golden' / 'saved_dataset'


def main() -> None:
  string, number = datasets.Value('string'), datasets.Value('int32')
  moods = datasets.ClassLabel(names=['down', 'up'])
  tags = datasets.ClassLabel(names=['O', 'B-PER', 'I-PER'])
  features = datasets.Features({
    'text': string,
    'label': moods,
    'tokens': datasets.List(string),
    'ner_tags': datasets.List(tags),
    'meta': {'author': string},
    'answers': datasets.Sequence({'text': string, 'answer_start': number}),
  })  # fmt: skip
  rows = [
    {
      'text': text,
      'label': label,
      'tokens': text.split(' '),
      'ner_tags': [min(i, 2) for i in range(len(text.split(' ')))],
      'meta': {'author': f'who {label}'},
      'answers': {'text': [text[:3]], 'answer_start': [0]},
    }
    for text, label in [
      ('a "fine"\tday', 1),
      ('no caf\u00e9 open', 0),
      ('who knows it', -1),
      ('all is\nwell', 1),
    ]
  ]
  whole = datasets.Dataset.from_list(rows, features=features)
  shutil.rmtree(FOLDER, ignore_errors=True)
  # Rows of `select` are saved in their new order.
  saved = {'train': whole.select([3, 0, 2, 1]), 'test': whole.select([1])}
  datasets.DatasetDict(saved).save_to_disk(
    FOLDER, num_shards={'train': 2, 'test': 1}
  )
  found = datasets.load_from_disk(FOLDER / 'train')
  expected = [
    {**row, 'name': None if row['label'] < 0 else moods.int2str(row['label'])}
    for row in found.to_list()
  ]
  text = json.dumps(expected, indent=1) + '\n'
  (FOLDER / 'rows.json').write_text(text)


if __name__ == '__main__':
  main()
