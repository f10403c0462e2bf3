"""Runs Born-Again Multi-Task learning (BAM): trains, scores, predicts, exports.

--config defines what to train: give your own Python file, or the name of a
config of this package. --config.FIELD=VALUE sets a field of the config;
bam_jax/fields.py explains all fields, and docs/guides/own_tasks.md explains how
to declare your tasks. If something was trained in a local --workdir, you can
leave --config out: the settings are those of the last command that trained.

Modes (--mode), in the order in which a new plan needs them:
  doctor    check the raw data without training; write doctor.md and
            doctor.json. The exit status is 3 if there are errors, else 1 if
            there are warnings, else 0; notes do not count
  estimate  estimate the steps, time, memory and disk that the unfinished part
            of a plan needs, from a few steps on the devices of this machine;
            write estimate.json
  run       do everything in the config, from raw data to the report; finished
            parts are kept, and an interrupted run continues
  prepare   only write the tokenised features, as TFRecord shard sets
  evaluate  score the finished runs again from their checkpoints
  report    write the report again
  merge     copy the finished parts of the work directories --from=DIR,DIR, such
            as shards of a plan, into --workdir, and write a report on all parts
  predict   predict the test files with the models of --group, and write a GLUE
            submission; --majority=wnli submits the majority label of WNLI. For
            your own texts, give --input=FILE (.tsv, .csv, .jsonl, .parquet ...)
            or --input=- (standard input), and --task=NAME; the predictions go
            to --output=FILE or standard output
  serve     run an HTTP server at --host and --port, with a web page, that
            predicts with the models of --group; needs the extra serve
  export    write the models of --group as directories for transformers or, with
            mean pooling, for sentence-transformers. With --format=stablehlo,
            write programs that jax runs without this package
  label     label training rows for the students of another plan: write the
            logits of the models of --group as logit sets in --output=DIR. The
            other plan, which may have another encoder and vocabulary, reads
            them with config.distill.logits=DIR. --input=DATA_DIR has the rows;
            by default, they are the rows of this plan

--group is a variant and a seed, such as single_to_multi-s0.

Shards: --config.plan.shard=i/n runs only config.seeds[i::n] (i from 0) and
their teachers. Teacher ensembles (config.distill.teachers=k: the first k seeds)
and the runs of config.search are trained in each shard, unless they are merged
into the shard's --workdir first.

Several machines: start the same command once per process, with a --workdir that
all machines can access, and --distributed=auto (Cloud TPU, Slurm, GKE, Open
MPI) or --coordinator=HOST:PORT --num_processes=N --process_id=I. All processes
must start within --join_seconds, with the same code, versions and flags. A
SIGTERM to one process stops all processes. You can continue with another number
of processes.

Object stores: --workdir and --config.data.dir accept s3://BUCKET/PATH (extra
s3) and gs://BUCKET/PATH (extra gcs). Such a work directory is mirrored to the
store from --scratch=DIR, and another machine can continue with the same
command; see docs/reliability.md.

Examples (installed, bam-jax is the same as python -m bam_jax.main):
  python -m bam_jax.main --config=demo
  python -m bam_jax.main --workdir=work/demo --mode=serve
  python -m bam_jax.main --config=minilm --config.data.dir=$GLUE_DIR
  python -m bam_jax.main --config=bam --workdir=gs://bucket/bam
  python -m bam_jax.main --config=minilm --mode=doctor \\
      --config.data.dir=$GLUE_DIR
  python -m bam_jax.main --workdir=work/minilm --mode=predict \\
      --group=single_to_multi-s0 --majority=wnli
  python -m bam_jax.main --workdir=work/minilm --mode=predict \\
      --task=sst2 --input=reviews.jsonl --output=predicted.jsonl
  python -m bam_jax.main --workdir=work/minilm --mode=export
  python -m bam_jax.main --workdir=work/minilm --mode=label \\
      --group=single-s0 --output=work/logits
  python -m bam_jax.main --config=demo --workdir=shard_0 \\
      --config.plan.shard=0/2
  python -m bam_jax.main --config=demo --workdir=shard_1 \\
      --config.plan.shard=1/2
  python -m bam_jax.main --config=demo --workdir=merged \\
      --mode=merge --from=shard_0,shard_1
"""

from collections.abc import Iterator
import contextlib
import io
import os
from pathlib import Path
import sys
import threading
import traceback
from typing import NoReturn

from absl import flags

from bam_jax import command_line
from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax.runtime import phases
from bam_jax.runtime import preemption
from bam_jax.storage import lock as lock_lib
from bam_jax.storage import store_lock
from bam_jax.storage import stores

# Exit status that Python itself uses if standard output cannot be written.
_CANNOT_WRITE = 120


def main(argv: list[str], preemption_signal: preemption.Signal) -> None:
  """Makes a config and a work directory from the flags, and runs one command.

  `argv` is the list that `command_line.parse` returned.
  """
  command_line.check(argv)
  if command_line.CONFIG.value is None:
    config = config_lib.load(Path(command_line.WORKDIR.value))
  else:
    config = config_lib.from_config_dict(command_line.CONFIG.value)
  if stores.is_url(config.data.dir) or stores.is_url(config.data.tfds_dir):
    from bam_jax.storage import raw_files

    config = raw_files.download_tables(config)
  place = command_line.WORKDIR.value or _default_workdir(config.name)
  with contextlib.ExitStack() as stack:
    if stores.is_url(place):
      workdir = stack.enter_context(_mirror(place, preemption_signal))
      lock = contextlib.nullcontext()
    else:
      workdir = Path(place)
      lock = lock_lib.lock_directory(workdir)
    stack.enter_context(files.report_errors(workdir, *_named_paths(config)))
    if command_line.MODE.value == 'doctor':
      from bam_jax.doctor import command as doctor

      sys.exit(doctor.run(config, workdir))
    # Imported here because it imports JAX, which takes seconds. The doctor and
    # the reports of most mistakes don't need JAX.
    with phases.phase(phases.START):
      from bam_jax import commands

    commands.run_command(config, workdir, preemption_signal, lock)


@contextlib.contextmanager
def _mirror(url: str, preemption_signal: preemption.Signal) -> Iterator[Path]:
  """Locks a work directory in an object store; yields its local mirror."""
  store = stores.Store(url)
  scratch = command_line.SCRATCH.value
  with store_lock.StoreLock(store, preemption_signal) as lock:
    # This import takes seconds, so the lock is taken first.
    from bam_jax.storage import mirror

    path = Path(scratch) if scratch else None
    with mirror.Mirror(store, lock, path, preemption_signal) as workdir:
      yield workdir


def _default_workdir(name: str) -> str:
  """Returns the default work directory, `work/NAME`; NAME is `config.name`.

  Raises:
    errors.UserError: `name` cannot be the name of a folder.
  """
  parts = Path(name).parts
  if not parts or '..' in parts or Path(name).is_absolute() or '\0' in name:
    raise errors.UserError(
      f'config.name: {name!r} cannot be the name of a folder in work/; give'
      ' another name, or --workdir'
    )
  return str(Path('work', name))


def _named_paths(config: config_lib.Config) -> list[Path]:
  """Returns the paths that the user gave in the config and the flags."""
  named = [
    config.data.dir,
    config.data.tfds_dir,
    config.distill.logits,
    command_line.INPUT.value,
    command_line.OUTPUT.value,
    *(command_line.FROM.value or ()),
  ]
  return [Path(path) for path in named if path]


def run_main() -> None:
  """Runs the command in `sys.argv`; calls `sys.exit` if its status is not 0."""
  with preemption.Signal() as preemption_signal:
    status = _run(preemption_signal)
  if status:
    sys.exit(status)


def run_process() -> NoReturn:
  """Runs the command in `sys.argv` and ends the process immediately.

  A normal exit would wait for the threads of libraries. After an error, some of
  these threads never end.
  """
  status = 1
  try:
    preemption_signal = preemption.Signal().__enter__()
    preemption_signal.enable_forced_exit()
    status = _run(preemption_signal)
  except SystemExit as e:
    status = e.code if isinstance(e.code, int) else int(e.code is not None)
  except BaseException as e:
    traceback.print_exception(e)
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError):
      stream.flush()
  os._exit(status)


def _run(preemption_signal: preemption.Signal) -> int:
  """Runs the command in `sys.argv`; returns its exit status.

  The status is 2 after a user's mistake, 75 if the same command should be run
  again, for example after a preemption signal, and 120 if standard output could
  not be written.
  """
  _open_standard_streams()
  command_line.configure_logging()
  sys.unraisablehook = _print_unraisable
  status, message, by_itself = 0, '', True
  try:
    with _wait_for_peer_exit():
      if '--help' in sys.argv or '-h' in sys.argv:
        print(__doc__, flags.FLAGS.module_help(command_line), sep='\n')
      else:
        main(command_line.parse(sys.argv), preemption_signal)
      sys.stdout.flush()
  except errors.UserError as e:
    status, message = 2, str(e)
  except errors.RetryError as e:
    status, message = preemption.EXIT_CODE, str(e)
  except preemption.Preempted as e:
    status, message, by_itself = e.exit_code, str(e), not e.is_agreed
  except _OutputError as e:
    # Python flushes standard output again when it exits, which would fail too.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not isinstance(
      e.__cause__, BrokenPipeError
    ):  # The reader, such as `| head`, has read enough.
      status, message = _CANNOT_WRITE, str(e)
  except Exception as e:
    if not _has_joined():
      raise
    traceback.print_exception(e)
    status = 1
  if message:
    # Printed only here, because deleting the exception may print warnings.
    with contextlib.suppress(OSError):
      print(f'bam_jax: {message}', file=sys.stderr, flush=True)
  if _has_joined():
    from bam_jax.runtime import peers

    peers.leave(status, by_itself=by_itself and status != 0)
  return status


class _OutputError(Exception):
  """Standard output cannot be written; the cause is the `OSError`."""


class _StandardOutput(io.FileIO):
  """Standard output whose write errors are raised as `_OutputError`."""

  def write(self, data: bytes) -> int | None:
    try:
      return super().write(data)
    except OSError as e:
      raise _OutputError(f'standard output: {e.strerror}') from e


def _open_standard_streams() -> None:
  """Makes standard output raise `_OutputError`; reopens closed streams.

  If a standard stream stayed closed, the next opened file would get its file
  descriptor.
  """
  stream = sys.stdout
  if stream is None:
    stream = os.fdopen(os.open(os.devnull, os.O_RDONLY), 'w')
  if sys.stderr is None:
    sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), 'w')
  if stream is sys.__stdout__ or sys.stdout is None:
    sys.stdout = io.TextIOWrapper(
      io.BufferedWriter(_StandardOutput(stream.fileno(), 'w', closefd=False)),
      encoding=stream.encoding,
      errors=stream.errors,
      line_buffering=stream.line_buffering,
    )


def _print_unraisable(unraisable: object) -> None:
  """Prints errors in destructors like Python, but hides those of TensorStore.

  If a checkpoint cannot be written, TensorStore causes one such error per
  array, although Orbax already raises the first error.
  """
  if str(unraisable.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(unraisable)


def _has_joined() -> bool:
  """Whether this process is one of several that must end together."""
  jax = sys.modules.get('jax')
  return jax is not None and jax.distributed.is_initialized()


@contextlib.contextmanager
def _wait_for_peer_exit() -> Iterator[None]:
  """Context manager: after an error, waits if another thread ends the process.

  That thread first closes the connection to the other processes, which makes
  calls in the main thread fail. Such an error is not reported.
  """
  try:
    yield
  except BaseException:
    peers = sys.modules.get('bam_jax.runtime.peers')
    if peers is not None and peers.is_leaving:
      threading.Event().wait()
    raise


if __name__ == '__main__':
  run_process()
