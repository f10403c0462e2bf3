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
  assert [row[:4] for row in conll.read(path, _TABLE)] == [
    (0, 4, ('EU rejects',), ('B-ORG', 'O')),
    (1, 7, ('Peter',), ('B-PER',)),
    (2, 11, ('BRUSSELS',), ('B-LOC',)),
  ]


def test_without_tags(tmp_path):
  table = task_lib.Table(text=(0,), label=None, format='conll')
  path = _file(tmp_path, 'EU\nrejects\n')
  assert [row[:4] for row in conll.read(path, table)] == [
    (0, 1, ('EU rejects',), None)
  ]


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    (
      'alone',
      '{}:2: the row has 1 columns, but those with the numbers [0, 1] are read,'
      ' counted from 0; fix the row, or the text and label of the task',
    ),
    (
      'New York\tO',
      "{}:2: 'New York' is not a word; give one per line, without blanks",
    ),
    ('\tO', "{}:2: '' is not a word; give one per line, without blanks"),
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


def _read(tmp_path, content, **table):
  table = {'text': (0,), 'label': -1} | table
  path = _file(tmp_path, content)
  return [
    (row.line, row.text[0].split(' '), row.label)
    for row in conll.read(path, task_lib.Table(format='conll', **table))
  ]


def test_a_marker_is_one_line(tmp_path):
  """First in a block, last in one, between sentences, and alone."""
  content = (
    '-DOCSTART- -DOCSTART- O\nEva N B-PER\nzit V O\n\n'
    'Bo N B-PER\n-DOCSTART- -X- O\nAn N B-PER\n-DOCSTART-\n\n'
    '-DOCSTART-\t-X-\tO\n-DOCSTART--ed N O\n'
  )
  assert _read(tmp_path, content) == [
    (2, ['Eva', 'zit'], ('B-PER', 'O')),
    (5, ['Bo'], ('B-PER',)),
    (7, ['An'], ('B-PER',)),
    (11, ['-DOCSTART--ed'], ('O',)),
  ]


@pytest.mark.parametrize(
  'space', ['\xa0', '\u202f', '\u3000', '\x0c', '\x1c', '\x85', '\u2028']
)
def test_other_white_space_is_part_of_a_word(tmp_path, space):
  content = f'Mme{space}Curie B-PER\n{space} O\n\t \n{space}\tO\n'
  assert _read(tmp_path, content) == [
    (1, [f'Mme{space}Curie', space], ('B-PER', 'O')),
    (4, [space], ('O',)),
  ]


@pytest.mark.parametrize('label', [None, -1], ids=['unlabelled', 'labelled'])
@pytest.mark.parametrize(
  'content',
  [
    pytest.param(
      '# id 7e1f domain=en\n# text = A # b\nA {0}\n# {0}\nb {0}\n', id='blanks'
    ),
    pytest.param('# id 7e1f\tdomain=en\nA\t{0}\n#\t{0}\nb\t{0}\n', id='tabs'),
    pytest.param('# newdoc\nA\t{0}\n#\t{0}\nb\t{0}\n', id='other-separator'),
    pytest.param('#begin (a); part 0\n\nA {0}\n# {0}\nb {0}\n', id='alone'),
  ],
)
def test_comments_are_no_words_with_labels_and_without(
  tmp_path, content, label
):
  tags = None if label is None else ('O', 'O', 'O')
  rows = _read(tmp_path, content.format('O'), label=label)
  assert [row[1:] for row in rows] == [(['A', '#', 'b'], tags)]


def test_comments_of_a_file_of_words_alone(tmp_path):
  content = '# sent_id = 1\nA\n#tag\nb\n\n# sent_id = 2\n#\nc\n'
  assert _read(tmp_path, content, label=None) == [
    (2, ['A', '#tag', 'b'], None),
    (7, ['#', 'c'], None),
  ]


def test_a_comment_within_a_sentence_is_told(tmp_path):
  content = 'A O\n# a remark here\nb O\n'
  with pytest.raises(
    errors.UserError, match=r'rows\.conll:2: looks like a comment in'
  ):
    _read(tmp_path, content, label=None)


def test_a_file_of_hashes_alone(tmp_path):
  assert _read(tmp_path, '# O\n\n# O\n') == [
    (1, ['#'], ('O',)),
    (3, ['#'], ('O',)),
  ]
