"""A whole plan killed at random moments; the oracle is an undisturbed one.

Takes a quarter of an hour, so it is asked for by name: `pytest -m fault`.
"""

import sys

import pytest

from benchmarks import faults

_KILLS = 20


@pytest.mark.fault
def test_a_plan_killed_at_random_moments_ends_bit_equal(tmp_path, monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  command = [
    sys.executable,
    '-m',
    'bam_jax.main',
    '--config=tests/configs/tiny.py',
  ]
  kills = list(faults.kill_and_finish(command, _KILLS, 0, tmp_path))
  assert len(kills) == _KILLS
  assert [kill for kill in kills if kill.differences] == []
  # Kills that all came before the first run, or after the last, show nothing.
  assert any(kill.begun for kill in kills)
