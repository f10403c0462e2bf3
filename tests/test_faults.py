"""A whole plan stopped at random moments; the oracle is an undisturbed one.

Takes a quarter of an hour, so it is asked for by name: `pytest -m fault`.
"""

from pathlib import Path
import subprocess
import sys

import pytest

from benchmarks import stops

_ROOT = Path(__file__).parents[1]


@pytest.mark.fault
@pytest.mark.parametrize(
  ('processes', 'terms', 'kills'), [(1, 0, 20), (1, 6, 2), (2, 6, 2)]
)
def test_a_plan_stopped_at_random_moments_ends_bit_equal(
  tmp_path, processes, terms, kills
):
  """A small campaign; `python -m benchmarks.stops` is the large one."""
  plans = stops.run(
    tmp_path,
    _ROOT / 'benchmarks' / 'configs' / 'stops.py',
    processes,
    terms,
    kills,
    seed=0,
    jobs=1,
    seconds=900,
  )
  sent = [stop for plan in plans for stop in plan.stops]
  assert len(sent) == terms + kills
  assert [plan for plan in plans if not plan.right] == []
  # Signals that all came before the first run, or after the last, show nothing.
  assert any(stop.begun for stop in sent)


@pytest.mark.fault
@pytest.mark.parametrize('files', [24, 36, 40, 46])
def test_too_few_open_files_end_the_process(tmp_path, files):
  """While features, the background's pipes or a checkpoint are written."""
  process = subprocess.run(
    [
      # `preexec_fn` would fork this process, in which JAX may run.
      *('sh', '-c', f'ulimit -n {files} && exec "$@"', 'sh'),
      *(sys.executable, '-m', 'bam_jax.main'),
      '--config=benchmarks/configs/stops.py',
      f'--workdir={tmp_path}',
    ],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert process.returncode in (1, 2)
  assert 'Too many open files' in process.stderr.splitlines()[-1]
