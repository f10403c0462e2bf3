"""Whatever is wrong, and however often, a finding takes a few lines."""

import contextlib
import io
from pathlib import Path

import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.doctor import command as doctor

_LABELS = tuple(f'intent_{i}_of_a_long_name' for i in range(1000))


def _rows(count: int, label: str = '', text: str = 'a text') -> list[str]:
  return [f'{text} {i}\t{label or _LABELS[i % 1000]}' for i in range(count)]


def _printed(tmp_path: Path, train: list[str], dev: list[str]) -> str:
  for name, rows in (('train', train), ('dev', dev)):
    lines = ['text\tlabel', *rows]
    (tmp_path / f'{name}.tsv').write_text('\n'.join(lines) + '\n')
  config = config_lib.default_config()
  config.data.dir = str(tmp_path)
  config.custom_tasks['own'] = config_lib.custom_task(
    labels=_LABELS,
    train='train.tsv',
    dev='dev.tsv',
    text=('text',),
    label='label',
  )
  config.tasks = ('own',)
  with contextlib.redirect_stdout(io.StringIO()) as out:
    doctor.run(config_lib.from_config_dict(config), tmp_path / 'work')
  return out.getvalue() + (tmp_path / 'work' / 'doctor.md').read_text()


@pytest.mark.parametrize(
  ('train', 'dev'),
  [
    ([*_rows(999), 'a text\twrong'], _rows(1000)),
    (_rows(1000), _rows(300, label=_LABELS[0])),
    (_rows(1000, label='wrong'), _rows(1000)),
    (['no tab'] * 500 + _rows(1000), _rows(1000)),
    ([f'a text\t{"wrong" * 9999}', *_rows(1000)], _rows(1000)),
    (_rows(1000, text='\ufffd'), _rows(1000, text='\ufeff')),
    ([f'\t{label}' for label in _LABELS], ['same\t' + x for x in _LABELS]),
    (_rows(1000), _rows(1000)),
  ],
  ids=[
    'one-wrong-label',
    'labels-that-no-row-has',
    'all-labels-wrong',
    'malformed-rows',
    'a-label-of-45,000-characters',
    'broken-characters',
    'empty-and-contradicting-texts',
    'the-same-rows-in-both-files',
  ],
)
def test_a_screen_holds_what_is_printed(train, dev, tmp_path):
  printed = _printed(tmp_path, train, dev)
  assert len(printed.splitlines()) < 100
  assert max(map(len, printed.splitlines())) < 800


def test_names_are_counted_where_they_are_many():
  assert errors.some('abc') == 'a, b, c'
  assert errors.some('abcdefghi') == 'a, b, c, d, e, f, g, h, i'
  assert errors.some('abcdefghij') == 'a, b, c, d, e, f, g, h and 2 more'
