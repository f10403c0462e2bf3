"""Progress; the oracles are lines and numbers by hand."""

import io
import math

import pytest
import rich.console

from bam_jax.runtime import progress as progress_lib


class _Clock:
  """Seconds moved by hand."""

  def __init__(self):
    self.now = 0.0

  def __call__(self):
    return self.now


def _progress(total, terminal=False):
  file, clock = io.StringIO(), _Clock()
  console = rich.console.Console(
    file=file, force_terminal=terminal, width=120, color_system=None
  )
  bar = progress_lib.Progress('train [b]', total, 'examples', console, clock)
  return bar, file, clock


def test_plain_progress_prints_at_most_every_ten_seconds():
  bar, file, clock = _progress(1000)
  with bar:
    for _ in range(10):
      clock.now += 4
      bar.advance(100, loss=0.123456)
  # By hand: lines at 12 s, 24 s and 36 s, each 300 examples in 12 s, then the
  # end: 1000 examples in 40 s.
  assert file.getvalue().splitlines() == [
    'train [b]: 30%, 25 examples/s, 28s left, loss 0.1235',
    'train [b]: 60%, 25 examples/s, 16s left, loss 0.1235',
    'train [b]: 90%, 25 examples/s, 4s left, loss 0.1235',
    'train [b]: 100%, 25 examples/s, took 40s, loss 0.1235',
  ]


def test_resumed_progress_counts_what_was_done_but_not_its_rate():
  bar, file, clock = _progress(1000)
  with bar:
    clock.now += 30  # Restoring takes a while.
    bar.start_at(900)
    clock.now += 100
    bar.advance(50)
    clock.now += 100
    bar.advance(50)
  assert file.getvalue().splitlines() == [
    'train [b]: 95%, 0.5 examples/s, 1m 40s left',
    'train [b]: 100%, 0.5 examples/s, took 3m 20s',
  ]


def test_plain_progress_does_not_claim_an_end_after_an_error():
  bar, file, _ = _progress(10)
  with pytest.raises(RuntimeError), bar:
    raise RuntimeError
  assert file.getvalue() == ''


def test_terminal_progress_draws_a_bar():
  bar, file, _ = _progress(10, terminal=True)
  with bar:
    bar.advance(10, loss=0.5)
  text = file.getvalue()
  assert 'train [b]' in text and '100%' in text and 'loss 0.5' in text


def test_terminal_progress_starts_at_what_was_done():
  bar, file, _ = _progress(10, terminal=True)
  with bar:
    bar.start_at(9)
  assert ' 90%' in file.getvalue()


def test_progress_goes_to_standard_error(capsys):
  with progress_lib.show('label', 4, 'rows') as bar:
    bar.advance(4)
  out, err = capsys.readouterr()
  assert out == '' and err.startswith('label: 100%, ')


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [(0.4, '0s'), (59.7, '1m 00s'), (7625, '2h 07m'), (math.inf, '?')],
)
def test_duration(seconds, text):
  assert progress_lib.duration(seconds) == text
