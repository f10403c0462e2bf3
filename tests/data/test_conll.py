"""Files of tagged words, written by hand."""

import pytest

from bam_jax import errors
from bam_jax.data import conll
from bam_jax.tasks import task as task_lib

_TABLE = task_lib.Table(text=(0,), label=-1, format='conll')


def _file(tmp_path, content):
  path = tmp_path / 'rows.conll'
  path.write_text(content)
  return path


def test_sentences_are_parted_by_empty_lines(tmp_path):
  path = _file(
    tmp_path,
    '-DOCSTART- -X- O\n\n\nEU NNP B-ORG\nrejects VBZ O\n   \n'
    'Peter\tNNP\tB-PER\n\n-DOCSTART- -X- O\n\nBRUSSELS NNP B-LOC',
  )
  assert list(conll.read(path, _TABLE)) == [
    (0, 4, ('EU rejects',), ('B-ORG', 'O')),
    (1, 7, ('Peter',), ('B-PER',)),
    (2, 11, ('BRUSSELS',), ('B-LOC',)),
  ]


def test_without_tags(tmp_path):
  table = task_lib.Table(text=(0,), label=None, format='conll')
  path = _file(tmp_path, 'EU\nrejects\n')
  assert list(conll.read(path, table)) == [(0, 1, ('EU rejects',), None)]


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    (
      'alone',
      '{}:2: 1 columns, of which [0, 1] are to be read, counted from 0; mend'
      ' the row',
    ),
    (
      'New York\tO',
      "{}:2: 'New York' is no word; give one a line, without blanks",
    ),
    ('\tO', "{}:2: '' is no word; give one a line, without blanks"),
  ],
  ids=['columns', 'blank', 'empty'],
)
def test_a_line_that_cannot_be_used(tmp_path, line, message):
  table = task_lib.Table(text=(0,), label=1, format='conll')
  path = _file(tmp_path, f'a O\n{line}\n\nb O\n')
  with pytest.raises(errors.UserError) as told:
    list(conll.read(path, table))
  assert str(told.value) == message.format(path)
  faults = []
  # The sentence counts, as rows that cannot be used do in every reader.
  assert [row.index for row in conll.read(path, table, faults.append)] == [1]
  assert [str(fault) for fault in faults] == [message.format(path)]
