"""Born-Again Multi-Task learning: teachers, their logits, a student, a report.

Modes (--mode):
  run       everything that the config asks for, from raw data to the report;
            what is there already is kept, an interrupted run goes on
  prepare   tokenised features alone, as TFRecord shard sets
  evaluate  score the finished runs again from their checkpoints
  predict   predictions on the unlabelled splits, and a GLUE submission, with
            the models of --group; of a file of your own with --input=FILE.tsv,
            FILE.jsonl or - and --task=NAME, to --output=FILE or standard output
  serve     an HTTP server at --host and --port that predicts texts with the
            models of --group, with a page to try it on; extra serve
  export    the models of --group as Hugging Face directories, for torch's
            AutoModelForSequenceClassification
  report    write the report again
  merge     copy what the work directories --from=DIR,DIR have finished into
            --workdir, such as shards of a plan, and report on all of it
  doctor    check the raw data before anything is computed: doctor.md and
            doctor.json; exit 0: at most notes, 1: warnings, 3: errors

Shards: --config.plan.shard=i/n carries out config.seeds[i::n] alone, i from 0,
with the teachers that these need. Ensembles (config.distill.teachers=k: of the
first k seeds) and the runs of config.search are trained in each shard, unless
they are merged into its --workdir first.

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
      --group=single_to_multi-s0
  python -m bam_jax.main --config=configs/minilm.py --mode=predict \\
      --task=sst2 --input=reviews.jsonl --output=predicted.jsonl
  python -m bam_jax.main --config=configs/minilm.py --mode=export
  python -m bam_jax.main --config=configs/minilm.py --mode=doctor \\
      --config.data.dir=$GLUE_DIR
  python -m bam_jax.main --config=configs/bam.py --workdir=shard_0 \\
      --config.plan.shard=0/2
  python -m bam_jax.main --config=configs/bam.py --mode=merge \\
      --from=shard_0,shard_1
"""

import ast
import contextlib
import importlib.util
import logging
from pathlib import Path
import re
import sys
import types

from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.experiments import lock
from bam_jax.experiments import store_lock
from bam_jax.experiments import stores
from bam_jax.training import preemption

_MODES = (
  'run', 'prepare', 'evaluate', 'predict', 'serve', 'export', 'report', 'merge',
  'doctor',
)  # fmt: skip

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'A file of configs/; fields change by --config.FIELD=VALUE.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Where everything goes, a directory or an s3:// or gs:// URL. Default:'
  ' work/NAME of the config.',
)
_SCRATCH = flags.DEFINE_string(
  'scratch',
  None,
  'Local directory in which a --workdir in an object store is worked on.'
  ' Default: one of ~/.cache/bam_jax, by the URL.',
)
_MODE = flags.DEFINE_enum('mode', 'run', _MODES, 'What to do; see above.')
_GROUP = flags.DEFINE_string(
  'group',
  None,
  'predict, serve, export: VARIANT-sSEED. Default: the last variant of the'
  ' first seed.',
)
_INPUT = flags.DEFINE_string(
  'input',
  None,
  'predict: a .tsv or .jsonl file of texts of --task, or - for standard input.',
)
_TASK = flags.DEFINE_string('task', None, 'predict: the task of --input.')
_OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'predict: a .tsv or .jsonl file with a line for each one of --input. Default:'
  ' standard output.',
)
_HOST = flags.DEFINE_string(
  'host', '127.0.0.1', 'serve: address of this machine to listen on.'
)
_PORT = flags.DEFINE_integer('port', 8000, 'serve: 0: any that is free.')
_FROM = flags.DEFINE_list(
  'from', None, 'merge: work directories, with , between them.'
)


def main(argv: list[str], notice: preemption.Notice) -> None:
  """Parses nothing itself: turns flags into a Config and runs one command."""
  if len(argv) > 1:
    raise errors.UserError(
      f'{argv[1]}: no such argument; flags begin with --, see --help'
    )
  if _CONFIG.value is None:
    raise errors.UserError(
      '--config is missing; try --config=configs/demo.py, or --help'
    )
  config = config_lib.from_config_dict(_CONFIG.value)
  _check_flags()
  for source in _FROM.value or ():
    if stores.is_url(source):
      raise errors.UserError(
        f'--from={source}: is no local directory; copy it to one first'
      )
  if stores.is_url(config.data.dir) or stores.is_url(config.data.tfds_dir):
    from bam_jax.experiments import raw_files

    config = raw_files.localized(config)
  place = _WORKDIR.value or str(Path('work') / config.name)
  if stores.is_url(place):
    scratch = Path(_SCRATCH.value) if _SCRATCH.value else None
    store = stores.Store(place)
    with store_lock.StoreLock(store, notice) as held:
      # It takes seconds to import, and a second command is refused before.
      from bam_jax.experiments import mirror

      with mirror.Mirror(store, held, scratch, notice) as workdir:
        _command(config, workdir, notice, contextlib.nullcontext())
  elif _SCRATCH.value:
    raise errors.UserError(
      f'--scratch={_SCRATCH.value}: is where a --workdir in an object store is'
      f' worked on, and {place} is a local one; leave it out'
    )
  else:
    _command(config, Path(place), notice, lock.Lock(Path(place)))


def _check_flags() -> None:
  """Raises where a flag is given that the mode would not read."""
  predicts_file = _MODE.value == 'predict' and _INPUT.present
  for flag, is_read, where in (
    (_INPUT, predicts_file, '--mode=predict'),
    (_TASK, predicts_file, '--mode=predict --input=FILE'),
    (_OUTPUT, predicts_file, '--mode=predict --input=FILE'),
    (_HOST, _MODE.value == 'serve', '--mode=serve'),
    (_PORT, _MODE.value == 'serve', '--mode=serve'),
  ):
    if flag.present and not is_read:
      raise errors.UserError(
        f'--{flag.name}={flag.value}: goes with {where}; leave it out'
      )


def _command(
  config: config_lib.Config,
  workdir: Path,
  notice: preemption.Notice,
  held: contextlib.AbstractContextManager[object],
) -> None:
  """Runs the command in a local directory, which `held` keeps for it."""
  if _MODE.value == 'doctor':
    from bam_jax.experiments import doctor

    sys.exit(doctor.run(config, workdir))

  # JAX reads its settings when it is first used, so it is imported here.
  from bam_jax.experiments import runner as runner_lib
  from bam_jax.inference import own_file
  from bam_jax.training import setup

  setup.configure_jax(config, workdir)
  runner = runner_lib.Runner(config, workdir, notice)
  commands = {
    'run': runner.run,
    'prepare': runner.prepare,
    'evaluate': runner.evaluate,
    'predict': lambda: (
      runner.predict(_GROUP.value)
      if _INPUT.value is None
      else own_file.predict(
        runner.model(_GROUP.value), _TASK.value, _INPUT.value, _OUTPUT.value
      )
    ),
    'export': lambda: runner.export(_GROUP.value),
    'merge': lambda: runner.merge([Path(path) for path in _FROM.value or ()]),
    'report': runner.report,
  }
  if _MODE.value != 'serve':
    with held:
      commands[_MODE.value]()
    return
  server = _server()
  listener = server.bind(_HOST.value, _PORT.value)
  with held:
    model = runner.model(_GROUP.value)
    model.compile()
  # Others may work in the directory while what was loaded serves.
  server.serve(model, config.name, listener)


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


def _parse_flags(argv: list[str]) -> list[str]:
  """absl's parser, with a user's mistake told in one line."""
  try:
    rest = flags.FLAGS(argv)
    if _CONFIG.value is not None:
      # A file that can't be read is told of at the first use alone.
      _CONFIG.value.to_dict()
    return rest
  except SyntaxError as e:
    raise errors.UserError(f'{e.filename}:{e.lineno}: {e.msg}') from e
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
    raise errors.UserError(_one_line(e)) from e
  except OSError as e:
    raise errors.UserError(
      f'--config: {str(e).splitlines()[-1].strip()}; give a file that is there'
    ) from e


def _one_line(error: Exception) -> str:
  """ConfigDict lists all its fields before it names the nearest key."""
  text = str(error.args[0] if error.args else error)
  if text[:1] in ("'", '"') and text[-1] == text[0]:
    # A KeyError told by another error is quoted and has its lines escaped.
    text = ast.literal_eval(text)
  lines = text.splitlines()
  if len(lines) > 1 and lines[-1].startswith('Did you mean'):
    first = lines[0].split('. Other fields')[0]
    if first[:1] == "'":
      first = f'--config: no such key: {first}'
    return f'{first}. {lines[-1]}'
  if re.fullmatch(r"'\w+'", text):
    # A key that is like none.
    return f'--config: no such key: {text}; bam_jax/config.py has them all'
  return ' '.join(line.strip() for line in lines)


def _print_unraisable(told: object) -> None:
  """Python's own, but for what TensorStore tells of a failed checkpoint.

  Of each array whose write ends after the first one has failed it tells that
  nobody waits any more. What failed is raised where it is waited for.
  """
  if str(told.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(told)


def run_main() -> None:
  """The console entry.

  Exit 2 and one line for a user's mistake, 75 where the machine was wanted back
  and the same command is to be given again; the doctor exits as it finds.
  """
  absl_logging.use_absl_handler()
  absl_logging.set_verbosity(absl_logging.INFO)
  # At INFO JAX tells which backends it looked for in vain, and S3's client
  # where it found its credentials.
  for name in ('jax', 'botocore', 'aiobotocore'):
    logging.getLogger(name).setLevel(logging.WARNING)
  # One style for both loggers: this package's messages are for people.
  for handler in logging.getLogger().handlers:
    handler.setFormatter(logging.Formatter('%(message)s'))
  sys.unraisablehook = _print_unraisable
  try:
    if '--help' in sys.argv or '-h' in sys.argv:
      print(__doc__)
      print(flags.FLAGS.get_help())
      return
    with preemption.Notice() as notice:
      main(_parse_flags(sys.argv), notice)
  except errors.UserError as e:
    print(f'bam_jax: {e}', file=sys.stderr)
    sys.exit(2)
  except preemption.Preempted as e:
    print(f'bam_jax: stopped by {e}; the same command goes on', file=sys.stderr)
    sys.exit(preemption.EXIT_CODE)
  except KeyboardInterrupt:
    print('bam_jax: interrupted; the same command goes on', file=sys.stderr)
    sys.exit(130)


if __name__ == '__main__':
  run_main()
