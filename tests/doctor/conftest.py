"""A small folder of files like GLUE's, in which nothing is wrong."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax.data import features
from bam_jax.data import registry
from bam_jax.doctor import examine
from bam_jax.doctor import findings
from bam_jax.tasks import demo
from bam_jax.tasks import glue

_TRAIN_ROWS, _HELD_OUT_ROWS = 120, 24
_STSB = 'index|genre|filename|year|old_index|source1|source2'
_MNLI = (
  'index|promptID|pairID|genre|sentence1_binary_parse|sentence2_binary_parse'
  '|sentence1_parse|sentence2_parse|sentence1|sentence2'
)
_MNLI_DEV = f'{_MNLI}|label1|label2|label3|label4|label5|gold_label'
_PAIR = 'index|sentence1|sentence2'
# As in the official files; CoLA has none but for its test file.
_HEADERS = {
  'CoLA/test.tsv': 'index|sentence',
  'SST-2/train.tsv': 'sentence|label',
  'SST-2/dev.tsv': 'sentence|label',
  'SST-2/test.tsv': 'index|sentence',
  'MRPC/train.tsv': 'Quality|#1 ID|#2 ID|#1 String|#2 String',
  'MRPC/dev.tsv': 'Quality|#1 ID|#2 ID|#1 String|#2 String',
  'MRPC/test.tsv': 'index|#1 ID|#2 ID|#1 String|#2 String',
  'STS-B/train.tsv': f'{_STSB}|sentence1|sentence2|score',
  'STS-B/dev.tsv': f'{_STSB}|sentence1|sentence2|score',
  'STS-B/test.tsv': f'{_STSB}|sentence1|sentence2',
  'QQP/train.tsv': 'id|qid1|qid2|question1|question2|is_duplicate',
  'QQP/dev.tsv': 'id|qid1|qid2|question1|question2|is_duplicate',
  'QQP/test.tsv': 'id|question1|question2',
  'MNLI/train.tsv': f'{_MNLI}|label1|gold_label',
  'MNLI/dev_matched.tsv': _MNLI_DEV,
  'MNLI/dev_mismatched.tsv': _MNLI_DEV,
  'MNLI/test_matched.tsv': _MNLI,
  'MNLI/test_mismatched.tsv': _MNLI,
  'AX/diagnostic.tsv': _PAIR,
  'QNLI/train.tsv': 'index|question|sentence|label',
  'QNLI/dev.tsv': 'index|question|sentence|label',
  'QNLI/test.tsv': 'index|question|sentence',
  'RTE/train.tsv': f'{_PAIR}|label',
  'RTE/dev.tsv': f'{_PAIR}|label',
  'RTE/test.tsv': _PAIR,
  'WNLI/train.tsv': f'{_PAIR}|label',
  'WNLI/dev.tsv': f'{_PAIR}|label',
  'WNLI/test.tsv': _PAIR,
}
# Labels that follow each other, about as often as in the official files.
_LABELS = {
  'cola': '0111101',
  'mrpc': '110',
  'qqp': '01001',
  'stsb': ('0.5', '1.500', '2.25', '3.8', '5'),
}


@functools.cache
def _tokenizer() -> features.Tokenizer:
  return features.Tokenizer.from_vocab(demo.vocabulary(), lowercase=True)


class Folder:
  """A data directory, to be tampered with; lines count from 1, as in editors.

  Attributes:
    root: the directory.
  """

  def __init__(self, root: Path):
    self.root = root

  def lines(self, file: str) -> list[str]:
    return (self.root / file).read_text(encoding='utf-8').splitlines()

  def write(self, file: str, lines: list[str]) -> None:
    path = self.root / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')

  def set_line(self, file: str, line: int, content: str) -> None:
    lines = self.lines(file)
    lines[line - 1] = content
    self.write(file, lines)

  def fields(self, file: str, line: int) -> list[str]:
    return self.lines(file)[line - 1].split('\t')

  def set_fields(self, file: str, line: int, values: dict[int, str]) -> None:
    """Replaces the fields of some columns."""
    fields = self.fields(file, line)
    for column, value in values.items():
      fields[column] = value
    self.set_line(file, line, '\t'.join(fields))

  def surround(
    self, file: str, line: int, column: int, before: str, after: str = ''
  ) -> None:
    """Puts something before and after a field."""
    field = self.fields(file, line)[column]
    self.set_fields(file, line, {column: f'{before}{field}{after}'})

  def report(self, **changes) -> findings.Report:
    """What the doctor says of it, with changed fields of the configuration."""
    config = config_lib.default_config()
    config.data.dir = str(self.root)
    config.tasks = (*glue.TASKS, 'stars')
    config.custom_tasks.stars = config_lib.custom_task(
      kind='regression',
      scale=(1.0, 5.0),
      format='jsonl',
      train='stars/train.jsonl',
      dev='stars/dev.jsonl',
      text=('review',),
      label='stars',
    )
    config.update_from_flattened_dict(changes)
    checked = config_lib.from_config_dict(config)
    return examine.examine(
      registry.resolve(checked), checked.data, _tokenizer()
    )


@pytest.fixture
def folder(tmp_path) -> Folder:
  """All nine tasks, AX, and `stars`, a task of JSON lines."""
  result = Folder(tmp_path)
  for file, lines in _files().items():
    result.write(file, list(lines))
  return result


@functools.cache
def _files() -> dict[str, tuple[str, ...]]:
  """File -> lines."""
  result = {}
  generator = np.random.default_rng(0)
  letters = generator.integers(ord('a'), ord('w'), (3000, 4))
  words = [''.join(map(chr, word)) for word in letters]

  def text() -> str:
    return ' '.join(words[i] for i in generator.integers(len(words), size=7))

  for name, task in glue.TASKS.items():
    labels = _LABELS.get(name, task.labels)
    for split, table in task.tables.items():
      header = _HEADERS.get(table.file, '').replace('|', '\t')
      lines = [header] if header else []
      width = len(header.split('\t')) if header else 4
      for row in range(_rows(split)):
        fields = [str(row)] * width
        for column in table.text:
          fields[column] = text()
        if table.label is not None:
          fields[table.label] = labels[row % len(labels)]
        lines.append('\t'.join(fields))
      result[table.file] = tuple(lines)
  for split in ('train', 'dev'):
    rows = [{'review': text(), 'stars': 1 + i % 5} for i in range(_rows(split))]
    result[f'stars/{split}.jsonl'] = tuple(json.dumps(row) for row in rows)
  return result


def _rows(split: str) -> int:
  return _TRAIN_ROWS if split == 'train' else _HELD_OUT_ROWS
