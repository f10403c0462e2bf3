"""Defines the command-line flags, and checks them before any work begins."""

from collections.abc import Collection, Iterator, Mapping
import logging
from pathlib import Path
import re

from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

from bam_jax import errors
from bam_jax import mistakes
from bam_jax import trainer_names
from bam_jax.runtime import logs
from bam_jax.storage import stores

MODES = (
  'doctor', 'estimate', 'run', 'prepare', 'evaluate', 'report', 'merge',
  'predict', 'serve', 'export', 'label',
)  # fmt: skip

# The config files of this package. In a checkout, this folder is a link to
# `configs/` of the repository.
_CONFIGS = Path(__file__).with_name('configs')


class _TupleParser(flags.ArgumentParser):
  """Flag parser for tuples that uses the last value of a repeated flag.

  The parser of ml_collections would join the values of all repetitions.
  """

  def parse(self, argument: object) -> tuple[object, ...]:
    return tuple_parser.TupleParser().parse(argument)


config_flags.register_flag_parser_for_type(tuple, _TupleParser())

CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'A Python file, or the name of a config of this package, such as demo;'
  ' --config.FIELD=VALUE sets one of its fields. Some take an argument, such as'
  ' bam:paper.',
)
WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Directory, or s3:// or gs:// URL, for all results. Default: work/NAME of the'
  ' config.',
)
SCRATCH = flags.DEFINE_string(
  'scratch',
  None,
  'Local directory for a --workdir in an object store. Default: one in'
  ' ~/.cache/bam_jax.',
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
  'predict: a file of texts for --task, in any format of training data, or -'
  ' for standard input.'
  ' label: the config.data.dir of the plan whose rows are labelled.',
)
TASK = flags.DEFINE_string('task', None, 'predict: the task of --input.')
OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'predict: a .tsv, .csv or .jsonl file with one prediction per row of --input.'
  ' Default: standard output. label: the folder of the logit sets.',
)
KEEP = flags.DEFINE_list(
  'keep',
  None,
  'predict: comma-separated columns of --input, or of the test files, that'
  ' are copied beside the predictions. Default: id, where there is one.',
)
MAJORITY = flags.DEFINE_list(
  'majority',
  None,
  'predict: comma-separated tasks for which submission.zip has the most'
  ' frequent training label in place of the predictions; their .tsv files keep'
  ' these. Useful for wnli, whose dev set contradicts its training set, so no'
  ' model is better on it.',
)
FORMAT = flags.DEFINE_enum(
  'format',
  'hf',
  ('hf', 'stablehlo'),
  'export: hf: directories for transformers, or, with mean pooling, for'
  ' sentence-transformers; stablehlo: a program that jax runs without this'
  ' package on CPU, CUDA and TPU.',
)
HOST = flags.DEFINE_string('host', '127.0.0.1', 'serve: address to listen on.')
PORT = flags.DEFINE_integer(
  'port', 8000, 'serve: port to listen on; 0: any free one.', 0, 65535
)
FROM = flags.DEFINE_list(
  'from', None, 'merge: comma-separated work directories.'
)
DISTRIBUTED = flags.DEFINE_enum(
  'distributed',
  'off',
  ('auto', 'off'),
  'auto: Cloud TPU, Slurm, GKE or Open MPI has started several processes, and'
  ' each finds the others.',
)
COORDINATOR = flags.DEFINE_string(
  'coordinator',
  None,
  'HOST:PORT of process 0, for several processes that were started otherwise;'
  ' with --num_processes and --process_id.',
)
NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'How many processes there are.', 1, 100_000
)
PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'The number of this process, from 0.', 0
)
JOIN_SECONDS = flags.DEFINE_integer(
  'join_seconds', 300, 'How long to wait for all processes at the start.', 1
)


def configure_logging() -> None:
  """Configures logging: plain messages on standard error."""
  absl_logging.use_absl_handler()
  absl_logging.set_verbosity(absl_logging.INFO)
  # One style for both loggers, absl's and Python's.
  for handler in logging.getLogger().handlers:
    logs.set_style(handler)


# Exceptions that absl and ml_collections raise for wrong flags and fields, and
# that mistakes in a config file raise.
_MISTAKES = (
  flags.Error,
  AttributeError,
  ImportError,
  KeyError,
  NameError,
  TypeError,
  ValueError,
)


def parse(
  argv: list[str], own: Mapping[str, str] = trainer_names.NO_NAMES
) -> list[str]:
  """Parses the flags; returns the arguments that are not flags.

  Args:
    argv: the program and its arguments.
    own: option of Hugging Face's Trainer -> its name in this program; only for
      programs other than `bam_jax.main`.

  Raises:
    errors.UserError: a flag, or the file of --config, is invalid.
  """
  try:
    rest = flags.FLAGS([*map(_with_file, ['', *argv], argv)])
    # The module is `builtins` for None, and for a dict or another builtin type
    # that get_config() returned by mistake.
    if type(CONFIG.value).__module__ != 'builtins':
      CONFIG.value.to_dict()  # Raises if the file could not be read.
    elif CONFIG.present:
      raise errors.UserError(
        '--config: get_config() of the file returns no configuration; end it'
        ' with `return config`'
      )
    return rest
  except SyntaxError as e:
    raise errors.UserError(f'{e.filename}:{e.lineno}: {e.msg}') from e
  except _MISTAKES as e:
    raise errors.UserError(
      mistakes.describe(e, argv, own, bool(CONFIG.present))
    ) from e
  except OSError as e:
    raise errors.UserError(
      f'--config: {_without_number(str(e).splitlines()[-1].strip())}; give an'
      ' existing file, or the name of one of the package: '
      + ', '.join(_names())
    ) from e


def _with_file(before: str, argument: str) -> str:
  """Replaces the name of a config of this package by the path of its file.

  Args:
    before: the argument before `argument`.
    argument: `--config=demo`, or `demo` if `before` is `--config`; any other
      argument is returned unchanged.
  """
  found = re.fullmatch(r'(--?config=)?(\w+)(:.*)?', argument)
  if not found or not (found[1] or before in ('-config', '--config')):
    return argument
  flag, name, rest = found.groups(default='')
  return f'{flag}{_CONFIGS / name}.py{rest}' if name in _names() else argument


def _names() -> list[str]:
  return sorted(path.stem for path in _CONFIGS.glob('[!_]*.py'))


def _without_number(message: str) -> str:
  """Removes a prefix such as `[Errno 2] ` from the message of an OSError."""
  return re.sub(r'^\[Errno \d+\] ', '', message)


def refuse_others(used: Collection[str], own: Mapping[str, str]) -> None:
  """Refuses flags of this module that a program other than `main` ignores.

  Args:
    used: names of the flags that the program uses.
    own: see `parse`.

  Raises:
    errors.UserError: a flag was given that is not in `used`.
  """
  for flag in flags.FLAGS.flags_by_module_dict()[__name__]:
    if flag.present and flag.name not in used:
      hint = trainer_names.describe_option(flag.name, own)
      raise errors.UserError(
        f'--{flag.name}: is not a flag of this command'
        f'{hint or "; leave it out"}'
      )


def check(rest: list[str]) -> None:
  """Checks that the mode uses all given flags and that they don't conflict.

  Args:
    rest: the arguments that `parse` returned.

  Raises:
    errors.UserError: --config is missing, the mode does not use a flag, flags
      contradict each other, or an argument is not a flag.
  """
  errors.raise_first(_find_mistakes(rest))


def _find_mistakes(rest: list[str]) -> Iterator[str]:
  """Yields an error message for each mistake; see `check`."""
  if len(rest) > 1:
    yield f'{rest[1]}: no such argument; flags begin with --, see --help'
  is_kept = WORKDIR.value and not stores.is_url(WORKDIR.value)
  if CONFIG.value is None and not is_kept:
    yield (
      '--config is missing; try --config=demo, or --help; where something was'
      ' trained, a local --workdir is enough'
    )
  mode = use = f'--mode={MODE.value}'
  if mode == '--mode=predict':
    use += ' --input=FILE' if INPUT.present else ' without --input'
  for flag, *users in (
    (INPUT, '--mode=predict', '--mode=label'),
    (TASK, '--mode=predict --input=FILE'),
    (OUTPUT, '--mode=predict --input=FILE', '--mode=label'),
    (KEEP, '--mode=predict'),
    (MAJORITY, '--mode=predict without --input'),
    (FORMAT, '--mode=export'),
    (HOST, '--mode=serve'),
    (PORT, '--mode=serve'),
  ):
    if flag.present and mode not in users and use not in users:
      value = flag.value
      text = ','.join(value) if isinstance(value, list) else value
      yield (
        f'--{flag.name}={text}: needs {" or ".join(users)}; give that too, or'
        ' leave it out'
      )
  local = [('from', place) for place in FROM.value or ()]
  if mode == '--mode=label':
    if not OUTPUT.value:
      yield '--output is missing: --mode=label needs --output=DIR'
    local.append(('output', OUTPUT.value))
  for name, place in local:
    if stores.is_url(place):
      yield f'--{name}={place}: is not a local directory; give one'
  workdir = WORKDIR.value or 'the default --workdir'
  if stores.is_url(workdir) and is_multi_process():
    yield (
      f'--workdir={workdir}: several processes need a shared directory; give'
      ' one that all machines see, for example on NFS'
    )
  if SCRATCH.value and not stores.is_url(workdir):
    yield (
      f'--scratch={SCRATCH.value}: is only used for a --workdir in an object'
      f' store, and {workdir} is local; leave it out'
    )
  if is_multi_process():
    yield from _find_process_mistakes()


def _find_process_mistakes() -> Iterator[str]:
  given = {
    '--coordinator=HOST:PORT': COORDINATOR.value,
    '--num_processes=N': NUM_PROCESSES.value,
    '--process_id=I': PROCESS_ID.value,
  }
  names = ', '.join(given)
  missing = [name for name, value in given.items() if value is None]
  if 0 < len(missing) < len(given):
    yield f'{" and ".join(missing)}: missing; give all of {names}, or none'
  if not missing:
    if DISTRIBUTED.value == 'auto':
      yield f'--distributed=auto: needs no other flags; leave {names} out'
    host, _, port = COORDINATOR.value.rpartition(':')
    if not host or not re.fullmatch('[0-9]{1,5}', port) or int(port) > 65535:
      yield (
        f'--coordinator={COORDINATOR.value}: is not HOST:PORT; give something'
        ' like 10.0.0.2:1234'
      )
    if PROCESS_ID.value >= NUM_PROCESSES.value:
      yield (
        f'--process_id={PROCESS_ID.value}: is not below --num_processes='
        f'{NUM_PROCESSES.value}; number the processes from 0'
      )
  if MODE.value in ('doctor', 'estimate', 'serve') or INPUT.value is not None:
    yield (
      f'--mode={MODE.value}{" --input" if INPUT.value else ""}: runs in one'
      ' process; leave --distributed, --coordinator, --num_processes and'
      ' --process_id out'
    )


def shared_flags() -> dict[str, object]:
  """Returns flag -> value for flags that must be equal in all processes."""
  return {
    f'--{flag.name}': flag.value
    for flag in (MODE, GROUP, OUTPUT, KEEP, MAJORITY, FORMAT, FROM)
  }


def is_multi_process() -> bool:
  """Whether the flags say that several processes run this command."""
  explicit = (COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
  return DISTRIBUTED.value == 'auto' or any(v is not None for v in explicit)
