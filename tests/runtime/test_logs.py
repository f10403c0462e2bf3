"""What of the log is printed. Oracle: the lines, written down here."""

import logging

import pytest

from bam_jax.runtime import logs


@pytest.mark.parametrize(
  ('level', 'printed'),
  [
    (logging.WARNING, 'a step\na loss\n'),
    # Set by the program, which has its own handlers.
    (logging.ERROR, ''),
  ],
)
def test_a_program_that_sets_a_level_decides(
  level, printed, monkeypatch, capsys, caplog
):
  root, other = logging.getLogger(), logging.getLogger('orbax')
  # Not by the attribute: loggers keep which levels are enabled.
  caplog.set_level(level)
  # As `logging.basicConfig` adds it, when Orbax is imported.
  bare = logging.StreamHandler()
  monkeypatch.setattr(root, 'handlers', [bare])
  with logs.shown():
    logging.info('a %s', 'step')
    other.info('a request')
    logging.warning('a loss')
  assert capsys.readouterr().err == printed
  assert (root.handlers, root.level) == ([bare], level)
