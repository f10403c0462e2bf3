"""Checkpoints on a full disk: a limit on the size of files stands for it.

`tests/test_faults.py` fills a disk under a whole plan.
"""

from pathlib import Path
import subprocess
import sys

_ROOT = Path(__file__).parents[2]
# Saves steps 1 and 2, the second one under a limit in bytes a file, and tells
# which step is found afterwards.
_SAVE = """
import pathlib, resource, sys
import jax
import jax.numpy as jnp
from bam_jax import errors
from bam_jax.core import step as step_lib
from bam_jax.training import checkpoints
folder, limit = pathlib.Path(sys.argv[1]), 10_000  # below an array's size
def state(step):
  return step_lib.TrainState(
    step=jnp.asarray(step),
    params={'w': jax.random.normal(jax.random.key(step), (256, 256))},
    opt_state={'m': jnp.ones((4,))},
    dropout_key=jax.random.key_data(jax.random.key(0)),
  )
try:
  with checkpoints.Checkpoints(folder) as saved:
    saved.save(state(1))
    saved.wait()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    saved.save(state(2))
    saved.wait()
except errors.UserError as e:
  print(e, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
with checkpoints.Checkpoints(folder) as saved:
  found = saved.restore(jax.tree.map(jnp.zeros_like, state(1)))
  equal = (found.params['w'] == state(1).params['w']).all()
  print(saved.latest_step, equal)
  saved.save(state(3))
  saved.wait()
  print(saved.latest_step)
"""


def test_the_last_good_checkpoint_remains(tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', _SAVE, str(tmp_path / 'saved')],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  told, found, later = done.stdout.splitlines()
  assert told.startswith(f'{tmp_path}/saved: a checkpoint could not be written')
  assert 'File too large' in told
  assert found == '1 True'
  assert later == '3'
  assert 'Traceback' not in done.stderr
