"""The command line: what may be given, and what is refused before any work."""

import ast
import logging
import re

from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

from bam_jax import errors
from bam_jax.storage import stores

MODES = (
  'run', 'prepare', 'estimate', 'evaluate', 'predict', 'serve', 'export',
  'label', 'report', 'merge', 'doctor',
)  # fmt: skip


class _TupleParser(flags.ArgumentParser):
  """Parses tuples as ml_collections does.

  Its own class would have a flag that is given twice join the two. With this
  one the last counts, as for every other flag.
  """

  def parse(self, argument: object) -> tuple[object, ...]:
    return tuple_parser.TupleParser().parse(argument)


config_flags.register_flag_parser_for_type(tuple, _TupleParser())

CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'A file of configs/; fields change by --config.FIELD=VALUE.'
)
WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Where everything goes, a directory or an s3:// or gs:// URL. Default:'
  ' work/NAME of the config.',
)
SCRATCH = flags.DEFINE_string(
  'scratch',
  None,
  'Local directory in which a --workdir in an object store is worked on.'
  ' Default: one of ~/.cache/bam_jax, by the URL.',
)
MODE = flags.DEFINE_enum('mode', 'run', MODES, 'What to do; see above.')
GROUP = flags.DEFINE_string(
  'group',
  None,
  'predict, serve, export, label: VARIANT-sSEED. Default: the last variant of'
  ' the first seed.',
)
INPUT = flags.DEFINE_string(
  'input',
  None,
  'predict: a .tsv or .jsonl file of texts of --task, or - for standard input.'
  ' label: the config.data.dir of the plan whose rows are labelled.',
)
TASK = flags.DEFINE_string('task', None, 'predict: the task of --input.')
OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'predict: a .tsv or .jsonl file with a line for each one of --input. Default:'
  ' standard output. label: the folder of the logit sets.',
)
MAJORITY = flags.DEFINE_list(
  'majority',
  None,
  'predict: tasks, with , between them, for which submission.zip has the'
  " training set's most frequent label in place of the predictions; their .tsv"
  ' files keep these. wnli: its dev set contradicts its training set, so no'
  ' model is better on it.',
)
FORMAT = flags.DEFINE_enum(
  'format',
  'hf',
  ('hf', 'stablehlo'),
  'export: hf: directories for transformers; stablehlo: a program that runs'
  ' without this package, by jax on CPU, CUDA and TPU.',
)
HOST = flags.DEFINE_string(
  'host', '127.0.0.1', 'serve: address of this machine to listen on.'
)
PORT = flags.DEFINE_integer('port', 8000, 'serve: 0: any that is free.')
FROM = flags.DEFINE_list(
  'from', None, 'merge: work directories, with , between them.'
)
DISTRIBUTED = flags.DEFINE_enum(
  'distributed',
  'off',
  ('auto', 'off'),
  'auto: one of several processes that Cloud TPU, Slurm, GKE or Open MPI has'
  ' started; each finds the others.',
)
COORDINATOR = flags.DEFINE_string(
  'coordinator',
  None,
  'HOST:PORT of process 0, for several processes elsewhere; with'
  ' --num_processes and --process_id.',
)
NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes',
  None,
  'How many processes there are.',
  lower_bound=1,
  upper_bound=100_000,
)
PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'The number of this process, from 0.', lower_bound=0
)
JOIN_SECONDS = flags.DEFINE_integer(
  'join_seconds',
  300,
  'How long a process waits at the start until all have come.',
  lower_bound=1,
)


def log_plainly() -> None:
  """Has a command log to standard error for people: messages alone."""
  absl_logging.use_absl_handler()
  absl_logging.set_verbosity(absl_logging.INFO)
  # One style for both loggers, absl's and Python's.
  for handler in logging.getLogger().handlers:
    handler.setFormatter(logging.Formatter('%(message)s'))
    handler.addFilter(_is_shown)


def _is_shown(record: logging.LogRecord) -> bool:
  """Whether a record is this package's, or a warning of any other.

  At INFO JAX reports the backends that it looked for in vain, an HTTP client
  each request, S3's client where it found its credentials, and TFDS through
  absl each look at a folder. This package logs through the root logger.
  """
  return record.name == 'root' or record.levelno >= logging.WARNING


def parse(argv: list[str]) -> list[str]:
  """absl's parser, with a user's mistake told in one line."""
  try:
    rest = flags.FLAGS(argv)
    if CONFIG.value is not None:
      # A file that can't be read is told of at the first use alone.
      CONFIG.value.to_dict()
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


def help_of_flags() -> str:
  """What each flag is for."""
  return flags.FLAGS.get_help()


def check(rest: list[str]) -> None:
  """Refuses what the mode would not read, and a command without a config.

  Args:
    rest: what `parse` returned.

  Raises:
    errors.UserError: naming the argument.
  """
  if len(rest) > 1:
    raise errors.UserError(
      f'{rest[1]}: no such argument; flags begin with --, see --help'
    )
  if CONFIG.value is None:
    raise errors.UserError(
      '--config is missing; try --config=configs/demo.py, or --help'
    )
  predicts_file = MODE.value == 'predict' and INPUT.present
  labels = MODE.value == 'label'
  for flag, is_read, where in (
    (INPUT, predicts_file or labels, '--mode=predict and --mode=label'),
    (TASK, predicts_file, '--mode=predict --input=FILE'),
    (
      OUTPUT,
      predicts_file or labels,
      '--mode=predict --input=FILE and --mode=label',
    ),
    (
      MAJORITY,
      MODE.value == 'predict' and not INPUT.present,
      '--mode=predict without --input',
    ),
    (FORMAT, MODE.value == 'export', '--mode=export'),
    (HOST, MODE.value == 'serve', '--mode=serve'),
    (PORT, MODE.value == 'serve', '--mode=serve'),
  ):
    if flag.present and not is_read:
      raise errors.UserError(
        f'--{flag.name}={_text(flag.value)}: goes with {where}; leave it out'
      )
  if labels and not OUTPUT.value:
    raise errors.UserError(
      '--output is missing: --mode=label writes logit sets below --output=DIR'
    )
  if labels and stores.is_url(OUTPUT.value):
    raise errors.UserError(
      f'--output={OUTPUT.value}: is no local directory; give one'
    )
  for source in FROM.value or ():
    if stores.is_url(source):
      raise errors.UserError(
        f'--from={source}: is no local directory; copy it to one first'
      )


def _text(value: object) -> str:
  return ','.join(value) if isinstance(value, list) else str(value)


def shared_flags() -> dict[str, object]:
  """The flags that several processes must have in common, by name."""
  return {
    f'--{flag.name}': flag.value
    for flag in (MODE, GROUP, OUTPUT, MAJORITY, FORMAT, FROM)
  }


def is_multi_process() -> bool:
  """Whether this is one of several processes.

  Raises:
    errors.UserError: flags that say so by half, or a mode that is of one.
  """
  several = _joins_others()
  one = ('doctor', 'estimate', 'serve')
  alone = MODE.value in one or INPUT.value is not None
  if several and alone:
    raise errors.UserError(
      f'--mode={MODE.value}{" --input" if INPUT.value else ""}: is of one'
      ' process; leave --distributed and --coordinator out'
    )
  return several


def _joins_others() -> bool:
  plain = {
    '--coordinator=HOST:PORT': COORDINATOR.value,
    '--num_processes=N': NUM_PROCESSES.value,
    '--process_id=I': PROCESS_ID.value,
  }
  missing = [name for name, value in plain.items() if value is None]
  if len(missing) == len(plain):
    return DISTRIBUTED.value == 'auto'
  if missing:
    raise errors.UserError(
      f'{" and ".join(missing)}: missing; give all three of {", ".join(plain)},'
      ' or none'
    )
  if DISTRIBUTED.value == 'auto':
    raise errors.UserError(
      '--distributed=auto: finds the processes by itself; leave'
      f' {", ".join(plain)} out'
    )
  host, _, port = COORDINATOR.value.rpartition(':')
  if not host or not re.fullmatch('[0-9]{1,5}', port) or int(port) > 65535:
    raise errors.UserError(
      f'--coordinator={COORDINATOR.value}: is no HOST:PORT, as 10.0.0.2:1234'
    )
  if PROCESS_ID.value >= NUM_PROCESSES.value:
    raise errors.UserError(
      f'--process_id={PROCESS_ID.value}: is not below --num_processes='
      f'{NUM_PROCESSES.value}; they are numbered from 0'
    )
  return True
