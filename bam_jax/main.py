"""Born-Again Multi-Task learning: teachers, their logits, a student, a report.

Modes (--mode):
  run       everything that the config asks for, from raw data to the report;
            what is there already is kept, an interrupted run goes on
  prepare   tokenised features alone, as TFRecord shard sets
  estimate  before a long run: steps, time, memory and disk of what is left of
            it, by a few real steps on the devices here; estimate.json
  evaluate  score the finished runs again from their checkpoints
  predict   predictions on the test splits, and a GLUE submission, with
            the models of --group; --majority=wnli submits a task's majority
            label. Of a file of your own with --input=FILE.tsv, FILE.jsonl or -
            and --task=NAME, to --output=FILE or standard output
  serve     an HTTP server at --host and --port that predicts texts with the
            models of --group, with a page to try it on; extra serve
  export    the models of --group as Hugging Face directories, for torch's
            AutoModelForSequenceClassification; --format=stablehlo: as programs
            that jax runs without this package
  label     what the models of --group say of their training rows, as logit
            sets in --output=DIR, for the students of another plan, which may
            have another encoder and vocabulary: config.distill.logits=DIR; of
            the rows that the plan has below --input=DATA_DIR, if given
  report    write the report again
  merge     copy what the work directories --from=DIR,DIR have finished into
            --workdir, such as shards of a plan, and report on all of it
  doctor    check the raw data before anything is computed: doctor.md and
            doctor.json; exit 0: at most notes, 1: warnings, 3: errors

Shards: --config.plan.shard=i/n carries out config.seeds[i::n] alone, i from 0,
with the teachers that these need. Ensembles (config.distill.teachers=k: of the
first k seeds) and the runs of config.search are trained in each shard, unless
they are merged into its --workdir first.

Several machines: start the same command once a process, with a --workdir that
all of them see, and --distributed=auto (Cloud TPU, Slurm, GKE, Open MPI) or
--coordinator=HOST:PORT --num_processes=N --process_id=I. All must come within
--join_seconds, with the same code, versions and flags. All are stopped by a
SIGTERM to one, and go on in any number.

Object stores: --workdir and --config.data.dir take s3://BUCKET/PATH (extra s3)
and gs://BUCKET/PATH (extra gcs). A work directory there is worked on in
--scratch=DIR and mirrored as it goes, so that another machine goes on with the
same command; docs/reliability.md tells what is promised.

Examples:
  python -m bam_jax.main --config=configs/demo.py
  python -m bam_jax.main --config=configs/minilm.py --config.data.dir=$GLUE_DIR
  python -m bam_jax.main --config=configs/bam.py --workdir=/data/bam
  python -m bam_jax.main --config=configs/bam.py --workdir=gs://bucket/bam
  python -m bam_jax.main --config=configs/minilm.py --mode=predict \\
      --config.data.dir=$GLUE_DIR --group=single_to_multi-s0
  python -m bam_jax.main --config=configs/minilm.py --mode=predict \\
      --config.data.dir=$GLUE_DIR --task=sst2 --input=reviews.jsonl \\
      --output=predicted.jsonl
  python -m bam_jax.main --config=configs/minilm.py --mode=export \\
      --config.data.dir=$GLUE_DIR
  python -m bam_jax.main --config=configs/minilm.py --mode=label \\
      --config.data.dir=$GLUE_DIR --group=single-s0 --output=work/logits
  python -m bam_jax.main --config=configs/minilm.py --mode=doctor \\
      --config.data.dir=$GLUE_DIR
  python -m bam_jax.main --config=configs/bam.py --workdir=shard_0 \\
      --config.plan.shard=0/2
  python -m bam_jax.main --config=configs/bam.py --mode=merge \\
      --from=shard_0,shard_1
"""

from collections.abc import Iterator
import contextlib
import importlib.util
import os
from pathlib import Path
import sys
import threading
import traceback
import types
from typing import NoReturn

from absl import logging as absl_logging

from bam_jax import command_line
from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax import schema
from bam_jax.runtime import preemption
from bam_jax.storage import lock
from bam_jax.storage import store_lock
from bam_jax.storage import stores


def main(argv: list[str], preemption_signal: preemption.Signal) -> None:
  """Parses nothing itself: turns flags into a Config and runs one command."""
  command_line.check(argv)
  several = command_line.is_several()
  config = config_lib.from_config_dict(command_line.CONFIG.value)
  if stores.is_url(config.data.dir) or stores.is_url(config.data.tfds_dir):
    from bam_jax.storage import raw_files

    config = raw_files.localized(config)
  place = command_line.WORKDIR.value or _default_workdir(config.name)
  scratch = command_line.SCRATCH.value
  if stores.is_url(place):
    if several:
      raise errors.UserError(
        f'--workdir={place}: several processes need a directory that all of'
        ' them see, such as one of an NFS; give one'
      )
    store = stores.Store(place)
    with store_lock.StoreLock(store, preemption_signal) as held:
      # It takes seconds to import, and a second command is refused before.
      from bam_jax.storage import mirror

      with mirror.Mirror(
        store, held, Path(scratch) if scratch else None, preemption_signal
      ) as workdir:
        _command(
          config, workdir, preemption_signal, contextlib.nullcontext(), several
        )
  elif scratch:
    raise errors.UserError(
      f'--scratch={scratch}: is where a --workdir in an object store is worked'
      f' on, and {place} is a local one; leave it out'
    )
  else:
    _command(
      config, Path(place), preemption_signal, lock.Lock(Path(place)), several
    )


def _default_workdir(name: str) -> str:
  """The work directory of a configuration, `work/NAME`.

  Raises:
    errors.UserError: the name is no path that stays below `work/`.
  """
  parts = Path(name).parts
  if not parts or '..' in parts or Path(name).is_absolute() or '\0' in name:
    raise errors.UserError(
      f'config.name: {name!r} names no folder below work/; give another name,'
      ' or --workdir'
    )
  return str(Path('work', name))


def _command(
  config: config_lib.Config,
  workdir: Path,
  preemption_signal: preemption.Signal,
  held: contextlib.AbstractContextManager[object],
  several: bool,
) -> None:
  """Runs the command in a local directory, which `held` keeps for it."""
  with files.told_below(workdir, *_named_places(config)):
    _run_command(config, workdir, preemption_signal, held, several)


def _named_places(config: config_lib.Config) -> list[Path]:
  """Where the user's own files are, besides the work directory."""
  named = [
    config.data.dir,
    config.data.tfds_dir,
    config.distill.logits,
    command_line.INPUT.value,
    command_line.OUTPUT.value,
    *(command_line.FROM.value or ()),
  ]
  return [Path(place) for place in named if place]


def _run_command(
  config: config_lib.Config,
  workdir: Path,
  preemption_signal: preemption.Signal,
  held: contextlib.AbstractContextManager[object],
  several: bool,
) -> None:
  """Has several processes meet, where there are several."""
  if command_line.MODE.value == 'doctor':
    from bam_jax.doctor import command as doctor

    sys.exit(doctor.run(config, workdir))

  # JAX reads its settings when it is first used, so it is imported here.
  from bam_jax.runtime import joining
  from bam_jax.runtime import peers
  from bam_jax.runtime import processes
  from bam_jax.training import setup

  setup.configure_jax(config, workdir)
  if several:
    process_id = command_line.PROCESS_ID.value
    seconds = command_line.JOIN_SECONDS.value
    # A process that stops before it watches the others, and they it, would
    # leave them waiting, or have JAX abort them.
    with preemption_signal.defer_exit(checks_at_end=False):
      joining.join(
        command_line.COORDINATOR.value,
        command_line.NUM_PROCESSES.value,
        process_id,
        seconds,
        preemption_signal,
      )
      joining.check_same(
        {
          **command_line.shared(),
          **{f'config.{k}': v for k, v in schema.flatten(config).items()},
        },
        process_id,
        seconds,
      )
      with peers.exit_on_peer_error():
        # It looks for the devices of all.
        peers.watch()
    if not processes.is_first():
      absl_logging.set_verbosity(absl_logging.ERROR)
    with processes.agreed_signal(preemption_signal) as agreed:
      _run_mode(config, workdir, agreed, held, several)
  else:
    _run_mode(config, workdir, preemption_signal, held, several)


def _run_mode(
  config: config_lib.Config,
  workdir: Path,
  preemption_signal: preemption.Signal,
  held: contextlib.AbstractContextManager[object],
  several: bool,
) -> None:
  """Runs what --mode asks for; several processes have met."""
  from bam_jax.data import registry
  from bam_jax.data import tfds_source
  from bam_jax.experiments import runner as runner_lib
  from bam_jax.inference import own_file
  from bam_jax.runtime import peers
  from bam_jax.runtime import processes

  mode, group = command_line.MODE.value, command_line.GROUP.value
  reads_rows = mode in ('run', 'prepare', 'estimate', 'evaluate')
  if reads_rows and config.data.source == 'tfds':
    # Before anything is fetched.
    processes.run_on_first(
      lambda: tfds_source.check(registry.resolve(config).tasks, config.data)
    )
  runner = processes.run_on_all(
    lambda: runner_lib.Runner(config, workdir, preemption_signal)
  )
  if mode == 'serve':
    server = _server()
    listener = server.bind(command_line.HOST.value, command_line.PORT.value)
    with held:
      model = runner.model(group)
      model.compile()
    # Others may work in the directory while what was loaded serves.
    server.serve(model, config.name, listener, preemption_signal)
    return
  commands = {
    'run': runner.run,
    'prepare': runner.prepare,
    'estimate': runner.estimate,
    'evaluate': runner.evaluate,
    'predict': lambda: runner.predict(group, command_line.MAJORITY.value or ()),
    'export': lambda: runner.export(group, command_line.FORMAT.value),
    'label': lambda: runner.label(
      group, Path(command_line.OUTPUT.value), command_line.INPUT.value
    ),
    'merge': lambda: runner.merge(
      [Path(path) for path in command_line.FROM.value or ()]
    ),
    'report': runner.report,
  }
  if command_line.INPUT.value is not None:
    commands['predict'] = lambda: own_file.predict(
      runner.model(group),
      command_line.TASK.value,
      command_line.INPUT.value,
      command_line.OUTPUT.value,
    )
  with contextlib.ExitStack() as stack:
    processes.run_on_first(lambda: stack.enter_context(held) and None)
    if several:
      stack.enter_context(peers.exit_on_peer_error())
      processes.check_equal('the weights', runner.encoder.digest)
      processes.check_shared(workdir)
    commands[mode]()


def _server() -> types.ModuleType:
  """The server, which is an extra."""
  for package in ('starlette', 'uvicorn'):
    if importlib.util.find_spec(package) is None:
      raise errors.UserError(
        f'--mode=serve: needs the package {package}; pip install'
        " 'bam-jax[serve]'"
      )
  from bam_jax.serving import server

  return server


def _print_unraisable(told: object) -> None:
  """Python's own, but for what TensorStore tells of a failed checkpoint.

  Of each array whose write ends after the first one has failed it tells that
  nobody waits any more. What failed is raised where it is waited for.
  """
  if str(told.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(told)


def _has_joined() -> bool:
  """Whether this is one of several processes, which end together."""
  jax = sys.modules.get('jax')
  return jax is not None and jax.distributed.is_initialized()


@contextlib.contextmanager
def _waits_where_another_thread_leaves() -> Iterator[None]:
  """Holds back the errors of a process that another thread is about to end.

  The thread that watches the other processes closes the connection to them
  first, and whatever this one waited for then fails.
  """
  try:
    yield
  except BaseException:
    peers = sys.modules.get('bam_jax.runtime.peers')
    if peers is not None and peers.is_leaving:
      threading.Event().wait()
    raise


def run_main() -> None:
  """Runs the command in `sys.argv`; raises SystemExit unless it ends with 0."""
  with preemption.Signal() as preemption_signal:
    status = _status(preemption_signal)
  if status:
    sys.exit(status)


def run_process() -> NoReturn:
  """Runs the command in `sys.argv` and ends the process, whatever is left.

  Python would first wait for threads of libraries, and some of them never end
  after an error. Signals are listened to until the end.
  """
  status = 1
  try:
    preemption_signal = preemption.Signal().__enter__()
    preemption_signal.enable_forced_exit()
    status = _status(preemption_signal)
  except SystemExit as e:
    status = e.code if isinstance(e.code, int) else int(e.code is not None)
  except BaseException as e:
    traceback.print_exception(e)
  for stream in (sys.stdout, sys.stderr):
    try:
      stream.flush()
    except OSError as e:
      # Python's own status where what was printed cannot be written.
      status = status or 120
      if stream is sys.stdout:
        print(f'bam_jax: standard output: {e.strerror}', file=sys.stderr)
  os._exit(status)


def _status(preemption_signal: preemption.Signal) -> int:
  """Runs the command in `sys.argv`; returns its exit status.

  Exit 2 and one line for a user's mistake, 75 where the machine was wanted back
  or something else came between, and the same command is to be given again; the
  doctor exits as it finds.
  """
  command_line.log_plainly()
  sys.unraisablehook = _print_unraisable
  if '--help' in sys.argv or '-h' in sys.argv:
    try:
      print(__doc__, command_line.help_of_flags(), sep='\n', flush=True)
    except BrokenPipeError:  # `--help | head` has read enough.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  status, told, by_itself = 0, '', True
  try:
    with _waits_where_another_thread_leaves():
      main(command_line.parse(sys.argv), preemption_signal)
  except errors.UserError as e:
    status, told = 2, str(e)
  except errors.RetryError as e:
    status, told = preemption.EXIT_CODE, str(e)
  except preemption.Preempted as e:
    status, told, by_itself = e.exit_code, str(e), not e.is_agreed
  except Exception as e:
    if not _has_joined():
      raise
    traceback.print_exception(e)
    status = 1
  if told:
    # The error is gone, and with it what libraries warn of when it goes.
    print(f'bam_jax: {told}', file=sys.stderr)
  if _has_joined():
    from bam_jax.runtime import peers

    peers.leave(status, by_itself=by_itself and status != 0)
  return status


if __name__ == '__main__':
  run_process()
