"""Runs the command that --mode names, in one process or in several.

Imports JAX and everything that uses it, so it is imported once the flags have
been checked.
"""

from collections.abc import Callable
import contextlib
import importlib.util
from pathlib import Path

from absl import logging as absl_logging

from bam_jax import command_line
from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import schema
from bam_jax.data import registry
from bam_jax.data import tfds_source
from bam_jax.estimate import command as estimate
from bam_jax.experiments import evaluate
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
from bam_jax.runtime import preemption
from bam_jax.runtime import processes
from bam_jax.training import setup

# Commands that read raw rows.
_READING = ('run', 'prepare', 'estimate', 'evaluate')


def run_command(
  config: config_lib.Config,
  workdir: Path,
  preemption_signal: preemption.Signal,
  lock: contextlib.AbstractContextManager[object],
  is_multi_process: bool,
) -> None:
  """Joins the other processes, if any, and runs the command.

  Args:
    config: the configuration.
    workdir: a local work directory.
    preemption_signal: of this process.
    lock: keeps other commands out of the work directory while it is held.
    is_multi_process: whether this is one of several processes.
  """
  setup.configure_jax(config, workdir)
  with contextlib.ExitStack() as stack:
    if is_multi_process:
      _join(config, preemption_signal)
      preemption_signal = stack.enter_context(
        processes.agreed_signal(preemption_signal)
      )
    if config.data.source == 'tfds' and command_line.MODE.value in _READING:
      # Before any weights are downloaded.
      processes.run_on_first(
        lambda: tfds_source.check(registry.resolve(config).tasks, config.data)
      )
    plan = processes.run_on_all(
      lambda: plan_lib.make_plan(config, workdir, preemption_signal)
    )
    if command_line.MODE.value == 'serve':
      _serve(plan, lock)
      return
    processes.run_on_first(lambda: stack.enter_context(lock) and None)
    if is_multi_process:
      stack.enter_context(peers.exit_on_peer_error())
      processes.check_equal('the weights', plan.encoder.digest)
      processes.check_shared(workdir)
    _bind_command(plan)()


def _join(
  config: config_lib.Config, preemption_signal: preemption.Signal
) -> None:
  """Joins the other processes and checks that they run the same command."""
  process_id = command_line.PROCESS_ID.value
  seconds = command_line.JOIN_SECONDS.value
  # A process that stops before it watches the others, and they watch it, would
  # leave them waiting, or make JAX abort them.
  with preemption_signal.defer_exit(checks_at_end=False):
    joining.join(
      command_line.COORDINATOR.value,
      command_line.NUM_PROCESSES.value,
      process_id,
      seconds,
      preemption_signal,
    )
    fields = schema.flatten(config)
    joining.check_same(
      {
        **command_line.shared_flags(),
        **{f'config.{key}': value for key, value in fields.items()},
      },
      process_id,
      seconds,
    )
    with peers.exit_on_peer_error():
      # JAX looks for the devices of all processes here.
      peers.watch()
  if not processes.is_first():
    absl_logging.set_verbosity(absl_logging.ERROR)


def _bind_command(plan: plan_lib.Plan) -> Callable[[], None]:
  """Returns the function of --mode, with the plan and its flags bound."""
  group = command_line.GROUP.value
  source, output = command_line.INPUT.value, command_line.OUTPUT.value
  if command_line.MODE.value == 'predict' and source is not None:
    return lambda: own_file.predict(
      predict.load_model(plan, group), command_line.TASK.value, source, output
    )
  return {
    'run': lambda: train.run(plan),
    'prepare': lambda: train.prepare(plan),
    'estimate': lambda: estimate.estimate(plan),
    'evaluate': lambda: evaluate.evaluate(plan),
    'predict': lambda: predict.predict(
      plan, group, command_line.MAJORITY.value or ()
    ),
    'export': lambda: export.export(plan, group, command_line.FORMAT.value),
    'label': lambda: label.label(plan, group, Path(output), source),
    'merge': lambda: merge.merge(
      plan, [Path(path) for path in command_line.FROM.value or ()]
    ),
    'report': lambda: report.report(plan),
  }[command_line.MODE.value]


def _serve(
  plan: plan_lib.Plan, lock: contextlib.AbstractContextManager[object]
) -> None:
  """Serves a group of runs; holds the lock until their models are loaded."""
  for package in ('starlette', 'uvicorn'):
    if importlib.util.find_spec(package) is None:
      raise errors.UserError(
        f'--mode=serve: needs the package {package}; pip install'
        " 'bam-jax[serve]'"
      )
  from bam_jax.serving import server

  listener = server.bind(command_line.HOST.value, command_line.PORT.value)
  with lock:
    model = predict.load_model(plan, command_line.GROUP.value)
    model.compile()
  server.serve(model, plan.config.name, listener, plan.preemption_signal)
