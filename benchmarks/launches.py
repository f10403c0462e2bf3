"""Times MiniLM-L6's step on a GPU under several ways of launching it.

  python -m benchmarks.launches --data=$GLUE_DIR --vocab=vocab.txt

For one model and for five seeds at once, 32 examples of one task and 128 of a
mix: milliseconds a step back to back, host time of a call when nothing is
queued, device time (the union of the intervals in which a kernel runs, from a
trace), and with it the device's idle share. A way is a set of compiler options.
"""

import argparse
from collections.abc import Callable, Mapping
import dataclasses
from pathlib import Path
import statistics
import tempfile
import time
from unittest import mock

import jax
import numpy as np

from bam_jax import config as config_lib
from bam_jax.core import step as step_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import train
from bam_jax.runtime import profiling
from bam_jax.training import compilation
from bam_jax.training import setup as setup_lib
from benchmarks import step_jax
from benchmarks import worker

_SEEDS = (1, 5)
_TASKS = ('sst2', 'qnli', 'rte')
_RUNS = ('single-s0-sst2', 'single-s0-qnli', 'multi-s0')
_BATCHES = 40
_SCHEDULE = step_lib.StepSchedule(1e-5, 1.0, 0.9)
_TRACED = 30
_SCHEDULING = 'xla_gpu_command_buffer_scheduling_mode'


# Options of the compiler, beside those of the package.
WAYS: Mapping[str, Mapping[str, object]] = {
  'as in the package': {},
  'one after the other in the graph': {_SCHEDULING: 'SERIALIZE'},
  'without graphs': {'xla_gpu_enable_command_buffer': ''},
}


def time_way(
  way: Mapping[str, object],
  config: config_lib.Config,
  plan: plan_lib.Plan,
  batches: Mapping[str, list[dict[str, np.ndarray]]],
  steps: int,
  say: Callable[[str], None],
) -> None:
  """Compiles the programs of a way and times each kind of batch with them."""
  platform = jax.default_backend()
  own = compilation.COMPILER_OPTIONS.get(platform, {})
  with mock.patch.dict(
    compilation.COMPILER_OPTIONS, {platform: {**own, **way}}
  ):
    setup = setup_lib.Setup(config, plan.tasks, plan.encoder)
  programs = setup.programs
  programs.compile_ahead(plan.packing, _SEEDS)
  programs.compiled()
  for seeds in _SEEDS:
    for name, host in batches.items():
      told = time_batches(setup, host, seeds, steps)
      say(f'{seeds} | {name} | {len(host[0]["weight"])} | {told}')


def time_batches(
  setup: setup_lib.Setup,
  host: list[dict[str, np.ndarray]],
  seeds: int,
  steps: int,
) -> str:
  """Times steps over some batches; returns the cells of a row."""
  programs = setup.programs
  states = (
    programs.init_state(setup.initial_params(seed), seed)
    for seed in range(seeds)
  )
  state = programs.seeds.stack(states, seeds)
  put = [programs.put(batch) for batch in host]
  if seeds > 1:
    put = [
      programs.put_seeds([host[i - seed] for seed in range(seeds)])
      for i in range(len(host))
    ]

  def run(count: int) -> None:
    nonlocal state
    for i in range(count):
      state, _ = programs.train_step(state, put[i % len(put)], _SCHEDULE)

  def wait() -> None:
    jax.block_until_ready(state)

  run(len(put))  # A graph is captured in the first steps.
  ms = worker.milliseconds(lambda: run(steps), wait, steps)
  calls = []
  for _ in range(20):
    wait()
    start = time.perf_counter()
    run(1)
    calls.append((time.perf_counter() - start) * 1e3)
  with tempfile.TemporaryDirectory() as directory:
    with jax.profiler.trace(directory):
      run(_TRACED)
      wait()
    events = profiling.read_events(Path(directory))
  busy = profiling.busy_seconds(events) * 1e3 / _TRACED
  return (
    f'{ms:.3f} | {statistics.median(calls):.3f} | {busy:.3f} |'
    f' {1 - busy / ms:.1%} |'
  )


def _batches(plan: plan_lib.Plan, name: str) -> list[dict[str, np.ndarray]]:
  """Makes the batches of a run that have as many rows as its first one."""
  (run,) = (run for run in plan.runs if run.name == name)
  spec = plan.data.make_spec(run, plan.packing)
  made = [spec.batches(step) for step in range(_BATCHES)]
  rows = len(made[0]['weight'])
  return [batch for batch in made if len(batch['weight']) == rows]


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--data', required=True, help='GLUE as TSV files')
  parser.add_argument('--vocab', required=True, help="BERT's vocab.txt")
  parser.add_argument('--size', default='minilm-l6')
  parser.add_argument('--steps', default=200, type=int, help='back to back')
  parser.add_argument('--ways', nargs='*', default=list(WAYS), choices=WAYS)
  args = parser.parse_args()
  config = dataclasses.replace(
    step_jax.make_config(args.size, args.data, args.vocab),
    tasks=_TASKS,
    variants=('single', 'multi'),
  )
  print(
    '| way | seeds | batch | rows | ms a step | call, ms | device, ms | idle |'
  )
  print('|---|--:|---|--:|--:|--:|--:|--:|')
  with tempfile.TemporaryDirectory() as directory:
    workdir = Path(directory)
    setup_lib.configure_jax(config, workdir)
    plan = plan_lib.make_plan(config, workdir)
    train.prepare(plan)
    batches = {name: _batches(plan, name) for name in _RUNS}
    for name in args.ways:
      time_way(
        WAYS[name],
        config,
        plan,
        batches,
        args.steps,
        lambda line, name=name: print(f'| {name} | {line}', flush=True),
      )


if __name__ == '__main__':
  main()
