"""Flips single bits of a finished plan; none may change a result unnoticed.

    python -m benchmarks.bit_flips --workdir=DIR [--flips=200] [--seed=0]

Makes the plan of tests/configs/tiny.py in DIR unless it is there. Then one bit
at a time of features, teachers' logits, their columns and manifests, run
records and checkpoints is flipped, what reads the file is run, and the bit is
flipped back. A flip is `found` if it ends in a UserError that names its folder,
and `harmless` if what is read is bit by bit what it was: columns are made anew,
and Orbax writes much that it does not read. Anything else is told, and ends in
status 1.
"""

import argparse
from collections.abc import Callable
import hashlib
import json
import os
from pathlib import Path
import sys

import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import shards
from bam_jax.experiments import background
from bam_jax.experiments import labelling
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import records
from bam_jax.experiments import train
from bam_jax.training import checkpoints as checkpoints_lib
from tests.configs import tiny

# What is flipped -> where it is in a work directory.
_KINDS = {
  'features': ('features/*/*/part-*',),
  'teachers': ('teachers/*/*/part-*',),
  'columns': ('features/*/*/columns/*', 'teachers/*/*/columns/*'),
  'manifests': ('features/*/*/manifest.json', 'teachers/*/*/manifest.json'),
  'records': ('runs/*/config.json', 'runs/*/DONE'),
  'checkpoints': ('runs/*/checkpoints/**/*',),
}


def _config() -> config_lib.Config:
  config = tiny.get_config()
  config.variants = ('single_to_multi',)
  # Latest and best checkpoint, with all that a resumed run needs.
  config.train.keep_optimizer = True
  config.train.evaluate_every = config.train.checkpoint_every = 8
  return config_lib.from_config_dict(config)


class _Plan:
  """A finished plan, with a method that reads each kind of file."""

  def __init__(self, workdir: Path):
    self.workdir = workdir
    self._config = _config()
    self._plan = plan_lib.make_plan(self._config, workdir)
    train.run(self._plan)
    programs = self._plan.setup.programs
    self._state = programs.init_state(self._plan.setup.initial_params(0), 0)

  def _reopened(self) -> plan_lib.Plan:
    """Returns a plan that has read nothing yet and shares compiled programs."""
    result = plan_lib.make_plan(
      self._config, self.workdir, setup=self._plan.setup
    )
    return result

  def features(self, file: Path) -> str:
    plan = self._reopened()
    train.prepare(plan)
    split = file.relative_to(self.workdir).parts[1:3]
    return _digest(*_arrays(plan.features[split[0]][split[1]]))

  def teachers(self, file: Path) -> str:
    """Reads the teacher predictions that students learn from."""
    plan = self._reopened()
    with background.Background() as others:
      logits = labelling.TeacherLogits(
        plan,
        plan.open_runs(plan.runs),
        {run.name: run for run in plan.runs},
        others,
      )
      return _digest(*(
        logits.read_probs(run, task)
        for run in plan.runs
        for task in run.teachers
      ))  # fmt: skip

  def columns(self, file: Path) -> str:
    return self.manifests(file)

  def manifests(self, file: Path) -> str:
    """Reads the shard set that a file belongs to."""
    is_teacher = file.relative_to(self.workdir).parts[0] == 'teachers'
    return self.teachers(file) if is_teacher else self.features(file)

  def records(self, file: Path) -> str:
    """Reruns the plan, which trains nothing, and reads its report."""
    plan = self._reopened()
    train.run(plan)
    report = json.loads((self.workdir / 'report.json').read_text())
    return _digest(json.dumps(report).encode())

  def checkpoints(self, file: Path) -> str:
    """Restores the checkpoints as inference and a resumed run do."""
    plan = self._reopened()
    name = file.relative_to(self.workdir).parts[1]
    trees = [plan.restore_params(name, best) for best in (False, True)]
    directory = plan.workspace.checkpoints(name)
    with checkpoints_lib.Checkpoints(directory) as saved:
      state = saved.restore(self._state)
      best = saved.best_step
    trees += [state.params, {'rest': state.opt_state, 'step': state.step}]
    return _digest(str(best).encode(), *(
      records.parameters_digest(tree).encode() for tree in trees
    ))  # fmt: skip


def _arrays(columns: shards.Columns) -> list[np.ndarray]:
  return [
    *columns.ragged('uid'),
    *columns.ragged('input_ids'),
    columns.fixed('length_a'),
    columns.fixed('label'),
  ]


def _digest(*parts: bytes | np.ndarray) -> str:
  digest = hashlib.sha256()
  for part in parts:
    digest.update(part if isinstance(part, bytes) else part.tobytes())
  return digest.hexdigest()


def _outcome(read: Callable[[Path], str], file: Path, expected: str) -> str:
  try:
    return 'harmless' if read(file) == expected else 'ANOTHER RESULT'
  except errors.UserError as e:
    # The set or the run that the file belongs to, and not just any.
    folders = {'runs': 2, 'features': 3, 'teachers': 3}
    top = next(part for part in reversed(file.parts) if part in folders)
    place = len(file.parts) - file.parts[::-1].index(top) - 1
    folder = Path(*file.parts[: place + folders[top]])
    return 'found' if str(folder) in str(e) else f'ANOTHER FILE NAMED: {e}'
  except Exception as e:
    return f'NO USER ERROR: {type(e).__name__}: {e}'


def _flip(file: Path, bit: int) -> None:
  data = bytearray(file.read_bytes())
  data[bit // 8] ^= 1 << bit % 8
  file.write_bytes(data)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--workdir', type=Path, required=True)
  parser.add_argument('--flips', type=int, default=200)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  plan = _Plan(args.workdir.absolute())
  rng = np.random.default_rng(args.seed)
  table: dict[str, dict[str, int]] = {}
  for number in range(args.flips):
    kind = list(_KINDS)[number % len(_KINDS)]
    read = getattr(plan, kind)
    files = sorted(
      file
      for pattern in _KINDS[kind]
      for file in plan.workdir.glob(pattern)
      if file.is_file() and file.stat().st_size
    )
    # Every file as often as any other: most of them are short.
    file = files[rng.integers(len(files))]
    bit = int(rng.integers(8 * file.stat().st_size))
    good, expected = file.read_bytes(), read(file)
    _flip(file, bit)
    outcome = _outcome(read, file, expected)
    file.write_bytes(good)
    by_outcome = table.setdefault(kind, {})
    by_outcome[outcome] = by_outcome.get(outcome, 0) + 1
    name = file.relative_to(plan.workdir)
    print(f'{number + 1}: bit {bit} of {name}: {outcome}', flush=True)
  print(json.dumps(table, indent=1))
  if any(set(found) - {'found', 'harmless'} for found in table.values()):
    sys.exit(1)


if __name__ == '__main__':
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  main()
