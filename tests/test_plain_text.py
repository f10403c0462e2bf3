"""Rules of text formats; the oracles are written by hand."""

import pytest

from bam_jax import plain_text

# White space and digits of Unicode, none of which a file format knows.
_SPACES = [
  *'\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2000\u2003\u2009\u2028\u2029\u202f\u3000'
]
_NO_NUMBERS = [
  '', ' ', '1_0', '1__0', '_1', ' 1', '1 ', '1\xa0', '1\n', '١٢', '\uff11', '²',
  'nan', 'NaN', 'inf', '-inf', 'Infinity', '1e', 'e1', '.', '+', '--1', '0x10',
  '1,5', '1.5.', '\u22121',
]  # fmt: skip


@pytest.mark.parametrize('space', _SPACES, ids=ascii)
def test_only_spaces_and_tabs_separate(space):
  assert plain_text.cells(f'a{space}b') == [f'a{space}b']
  assert plain_text.cells(f'{space} O') == [space, 'O']
  assert not plain_text.is_blank(space)
  assert plain_text.one_line(f' a{space} b') == f'a{space} b'


@pytest.mark.parametrize('text', _NO_NUMBERS, ids=ascii)
def test_what_python_reads_and_a_file_does_not_mean(text):
  with pytest.raises(ValueError, match='is not a decimal number'):
    plain_text.parse_number(text)
  with pytest.raises(ValueError, match='is not a whole number'):
    plain_text.parse_integer(text)
  assert not plain_text.is_index(text)


@pytest.mark.parametrize(
  ('text', 'number'),
  [('3', 3), ('-0.5', -0.5), ('+1.', 1), ('.5', 0.5), ('1e-3', 1e-3),
   ('2E+2', 200), ('007', 7)],
)  # fmt: skip
def test_numbers(text, number):
  assert plain_text.parse_number(text) == number


def test_whole_numbers():
  assert [plain_text.parse_integer(text) for text in ('12', '-1', '+0')] == [
    12,
    -1,
    0,
  ]
  assert plain_text.is_index('12')
  assert not plain_text.is_index('-1')
