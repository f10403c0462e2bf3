"""Runs the command that --mode names, in one process or in several.

`main` imports this module only after it has checked the flags, because this
module imports JAX.
"""

import contextlib
import logging
from pathlib import Path
import time

from absl import logging as absl_logging
import jax

from bam_jax import command_line
from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import schema
from bam_jax.estimate import command as estimate
from bam_jax.experiments import export
from bam_jax.experiments import label
from bam_jax.experiments import merge
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import predict
from bam_jax.experiments import report
from bam_jax.experiments import train
from bam_jax.inference import own_file
from bam_jax.runtime import joining
from bam_jax.runtime import peers
from bam_jax.runtime import phases
from bam_jax.runtime import preemption
from bam_jax.runtime import processes
from bam_jax.training import setup


def run_command(
  config: config_lib.Config,
  workdir: Path,
  preemption_signal: preemption.Signal,
  lock: contextlib.AbstractContextManager[object],
) -> None:
  """Connects to the other processes, if there are any, and runs the command.

  Args:
    config: the configuration.
    workdir: local work directory.
    preemption_signal: signal that the command checks while it runs.
    lock: context manager that keeps other commands out of the work directory.
      Only the first process enters it.
  """
  setup.configure_jax(config, workdir)
  phases.phase.watch_compiler()
  is_multi_process = command_line.is_multi_process()
  mode = command_line.MODE.value
  with contextlib.ExitStack() as stack:
    if is_multi_process:
      _join(config, preemption_signal)
      preemption_signal = stack.enter_context(
        processes.agreed_signal(preemption_signal)
      )
    if mode not in ('prepare', 'merge', 'report'):
      setup.start_devices(predicts=mode in ('predict', 'label'))
    reads_rows = mode in ('run', 'prepare', 'estimate', 'evaluate')
    plan = processes.run_on_all(
      lambda: plan_lib.make_plan(
        config, workdir, preemption_signal, reads_rows=reads_rows
      )
    )
    if mode == 'serve':
      _serve(plan, lock)
      return
    processes.run_on_first(lambda: stack.enter_context(lock) and None)
    if is_multi_process:
      stack.enter_context(peers.exit_on_peer_error())
      encoder = plan.encoder
      joining.check_same(
        {
          'sha256 of the weights': encoder.digest,
          'pooling': encoder.config.pooling,
        },
        jax.process_index(),
        command_line.JOIN_SECONDS.value,
      )
      processes.check_shared(workdir)
    _run_mode(plan)


def _join(
  config: config_lib.Config, preemption_signal: preemption.Signal
) -> None:
  """Connects to the other processes; checks that all run the same command."""
  process_id = command_line.PROCESS_ID.value
  seconds = command_line.JOIN_SECONDS.value
  # If a process exited before all processes watch each other, the others would
  # wait for it, or JAX would abort them.
  with preemption_signal.defer_exit(checks_at_end=False):
    joining.join(
      command_line.COORDINATOR.value,
      command_line.NUM_PROCESSES.value,
      process_id,
      seconds,
      preemption_signal,
    )
    settings = command_line.shared_flags() | schema.flatten({'config': config})
    facts = joining.code_versions() | settings
    joining.check_same(facts, process_id, seconds)
    with peers.exit_on_peer_error():
      # This call makes JAX look for the devices of all processes.
      peers.watch()
  if not processes.is_first():
    absl_logging.set_verbosity(absl_logging.ERROR)


def _run_mode(plan: plan_lib.Plan) -> None:
  """Calls the function for --mode with the plan and the mode's flags."""
  group = command_line.GROUP.value
  source, output = command_line.INPUT.value, command_line.OUTPUT.value
  kept = command_line.KEEP.value
  kept = None if kept is None else tuple(kept)
  match command_line.MODE.value:
    case 'predict' if source is not None:
      model = predict.load_model(plan, group)
      own_file.predict(model, command_line.TASK.value, source, output, kept)
    case 'predict':
      majority = command_line.MAJORITY.value or ()
      predict.predict(plan, group, majority, kept)
    case 'export':
      export.export(plan, group, command_line.FORMAT.value)
    case 'label':
      label.label(plan, group, Path(output), source)
    case 'merge':
      merge.merge(plan, [Path(path) for path in command_line.FROM.value or ()])
    case 'run':
      train.run(plan)
      estimate.log_time(plan)
    case mode:
      {
        'prepare': train.prepare,
        'estimate': estimate.estimate,
        'evaluate': train.evaluate,
        'report': report.report,
      }[mode](plan)


def _serve(
  plan: plan_lib.Plan, lock: contextlib.AbstractContextManager[object]
) -> None:
  """Serves the models of a group; holds the lock until they are compiled."""
  errors.require('--mode=serve', ('starlette', 'uvicorn'), 'serve')
  from bam_jax.serving import server

  listener = server.bind(command_line.HOST.value, command_line.PORT.value)
  with lock:
    model = predict.load_model(plan, command_line.GROUP.value)
    sizes = ', '.join(map(str, model.sizes))
    logging.info('Compiling a program for batches of each of %s rows', sizes)
    started = time.perf_counter()
    model.compile()
    logging.info('Compiled them in %.0f s', time.perf_counter() - started)
  server.serve(model, plan.config.name, listener, plan.preemption_signal)
