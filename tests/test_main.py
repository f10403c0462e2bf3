"""The command line: what a user's mistake looks like."""

import configparser
import dataclasses
import errno
import importlib.util
import os
from pathlib import Path
import re
import signal
import socket
import subprocess
import sys
from unittest import mock

from absl import flags
from absl.testing import flagsaver
import pytest

from bam_jax import command_line
from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import main
from bam_jax import trainer_names
from bam_jax.data import registry
from bam_jax.experiments import search
from bam_jax.training import setup
from tests import starting

# ml_collections loads a config file in the old way.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module')

_ROOT = Path(__file__).parents[1]
_CONFIG = """
from bam_jax import config as config_lib

def get_config():
  config = config_lib.default_config()
  config.tasks = ('mood', 'stars')
  config.custom_tasks.mood = config_lib.custom_task(
    labels=('down', 'up'), text=('text',), train='mood.tsv', dev='mood.tsv')
  config.custom_tasks.stars = config_lib.custom_task(
    kind='regression', scale=(0.0, 5.0), text=('text',), train='stars.tsv',
    dev='stars.tsv')
  config.model.arch = 'tiny'
  config.data.dir = DIR
  return config
"""
_TABLES = {
  'mood.tsv': b'text\tlabel\na fine day\tup\na dull day\tdown\n',
  'stars.tsv': b'text\tlabel\nso so\t2.5\n',
}


@pytest.fixture
def place(tmp_path, monkeypatch, restored_logs) -> Path:
  """A folder with a config, its data, and a work directory that is in use."""
  for name, content in _TABLES.items():
    (tmp_path / name).write_bytes(content)
  config = _CONFIG.replace('DIR', repr(str(tmp_path)))
  (tmp_path / 'config.py').write_text(config)
  (tmp_path / 'work').mkdir()
  (tmp_path / 'work' / 'notes.txt').write_text('mine')
  monkeypatch.chdir(tmp_path)
  # ml_collections would load a config into the module of the last one.
  monkeypatch.delitem(sys.modules, 'config_config', raising=False)
  # It would change JAX's settings for all tests after this one.
  monkeypatch.setattr(setup, 'configure_jax', lambda config, workdir: None)
  with flagsaver.flagsaver():
    yield tmp_path
  flags.FLAGS.unparse_flags()


def _files(directory: Path) -> dict[Path, bytes]:
  return {
    path: path.read_bytes()
    for path in directory.rglob('*')
    if path.is_file() and '__pycache__' not in path.parts
  }


def _mistake(monkeypatch, capsys, *arguments: str) -> str:
  """The one line that a command ends with."""
  monkeypatch.setattr(sys, 'argv', ['bam_jax', *arguments])
  with pytest.raises(SystemExit) as end:
    main.run_main()
  assert end.value.code == 2
  out, err = capsys.readouterr()
  assert out == ''
  lines = err.splitlines()
  # Progress may come before it, nothing after it.
  assert [n for n, line in enumerate(lines) if 'bam_jax: ' in line] == [
    len(lines) - 1
  ], err
  assert lines[-1].startswith('bam_jax: ')
  assert 'Traceback' not in err
  return lines[-1]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--config.multi.learning_rat=1'], r'rat.*Did you mean.*learning_rate'),
    (['--config.zzz=1'], r"--config: no such key: 'zzz'; bam_jax/fields\.py"),
    (['--config.train.log_every=often'], r'log_every.*often'),
    (['--config.train.log_every=2.5'], r'log_every.*2\.5'),
    (['--config.train.log_every=0'], r'log_every: 0 is out of range'),
    (['--coordinator=a:70000', '--num_processes=2', '--process_id=0'],
     r'--coordinator=a:70000: is not HOST:PORT'),
    (['--config.packing.slots=100000000'], r'packing.slots: .* out of range'),
    (['--mode=train'], r'--mode=train: .*doctor\|estimate\|run\|prepare\|'),
    (['--seed=1'], r"Unknown command line flag 'seed'"),
    (['--tsk=mood'], r"flag 'tsk'; the nearest is --task$"),
    (['--learning_rate=1'], r"'learning_rate'; the nearest is config"),
    (['--config.batch_size=8'], r'or config.multi.batch_size'),
    (['--output_dir=x'], r"'output_dir'; here it is --workdir \(docs/"),
    (['--max-grad-norm=1'], r'; here it is config\.optimizer\.clip_norm \('),
    (['--fp16'], r"'fp16'; here it is config\.model\.dtype, which is float32"),
    (['--save_total_limit=2'], r'; not here: a run keeps its latest and its'),
    (['--id2label={}'], r'; here it is config\.custom_tasks\.TASK\.labels, or'),
    (['--truncation'], r"'truncation'; here it is config\.data\.max_length"),
    (['--config.optimizer.name=x'], r"'name'; not here: BERT's Adam is"),
    (['--config.train.save_steps=9'], r'is config\.train\.checkpoint_every,'),
    (['--config.train.evaluate_every=epoch'],
     r'y=epoch: give a whole number \(steps between evaluations\)$'),
    (['--config.model.remat=maybe'], r'=maybe: give True or False \(recomp'),
    (['--config.custom_tasks.zzz.stride=1'], r"no such key: 'zzz'; bam_jax"),
    (['prepare'], r'prepare: no such argument; flags begin with --'),
    (["--config.tasks=('moood',)"], r"'moood' is not a task; .*'mood'"),
    (["--config.tasks=('rte',)", '--config.data.dir='], r'data.dir is e'),
    (['--config.data.dir=nowhere'], r'nowhere/mood.tsv: No such file or direc'),
    (['--config.model.arch=huge'], r"config.model.arch: 'huge' is none"),
    (['--config.model.init=none-there'], r'none-there'),
    (['--mode=predict', '--group=all'], r'--group=all: no such group; give'),
    (['--mode=report'], r'work: no finished run to report on; run --mode=run'),
    (['--mode=evaluate'], r'work: no finished run to evaluate; run --mode=run'),
    (['--mode=predict'], r'multi-s0: the run is not finished; finish'),
    (['--mode=merge'], r'--from is missing: --mode=merge takes --from=DIR'),
    (['--mode=merge', '--from=a,b'], r'--from=a: has no finished run; give'),
    (['--mode=merge', '--from=s3://b/a'], r'--from=s3://b/a: is not a'),
    (['--input=a.tsv'], r'=a.tsv: needs --mode=predict or --mode=label'),
    (['--mode=predict', '--task=mood'], r'--task=mood: needs --mode=pred'),
    (['--mode=label'], '--output is missing: --mode=label needs'),
    (['--mode=label', '--output=s3://b/c'], r'--output=s3://b/c: is not a'),
    (['--mode=label', '--output=sets'], r'multi-s0: the run is not finished'),
    (['--majority=a,b'], r'--majority=a,b: needs --mode=predict w'),
    (['--mode=predict', '--majority=rte'], '--majority=rte: the plan has '),
    (['--format=hf'], r'--format=hf: needs --mode=export; give that too, or'),
    (['--mode=predict', '--host=::'], r'--host=::: needs --mode=serve'),
    (['--mode=serve', '--port=-1'], r'--port=-1: -1 is not an integer in'),
    (['--mode=serve', '--port=x'], r'flag --port=x:'),
    (['--scratch=here'], r'--scratch=here: .* work is local; leave it'),
    (['--workdir=ftp://b/c'], r'ftp://b/c: is neither s3://BUCKET/PATH nor gs'),
    (['--config.data.dir=ftp://b/c'], r'ftp://b/c: is neither s3://BUCKET'),
    (['--config.plan.shard=\u0660/2'], r"plan.shard: '\u0660/2' is not i/n"),
    (['--config.plan.shard=1'], r"plan.shard: '1' is not i/n with i from 0"),
    (['--coordinator=here:1'], r'--num_processes=N and --process_id=I: mis'),
    (
      ['--coordinator=here', '--num_processes=2', '--process_id=0'],
      r'--coordinator=here: is not HOST:PORT',
    ),
    (
      ['--coordinator=here:1', '--num_processes=2', '--process_id=2'],
      r'--process_id=2: is not below --num_processes=2; number the processes',
    ),
    (
      [
        '--coordinator=here:1', '--num_processes=2', '--process_id=1',
        '--distributed=auto',
      ],
      r'--distributed=auto: needs no other flags; leave --coordinator',
    ),
    (['--distributed=on'], r'--distributed=on: .*auto\|off'),
    (['--mode=doctor', '--distributed=auto'], r'--mode=doctor: runs in one'),
    (['--mode=estimate', '--distributed=auto'], r'--mode=estimate: runs in'),
    (
      ['--workdir=s3://b/c', '--distributed=auto'],
      r'--workdir=s3://b/c: several processes need a shared directory',
    ),
    (
      ['--config.search.seeds=(0,)', '--config.search.learning_rates=(1e-5,)'],
      r'config.search.seeds: 0 is in config.seeds too',
    ),
  ],
  ids=[
    'mistyped-key', 'unlike-any-key', 'word-for-number',
 'fraction-for-number', 'out-of-range', 'port-out-of-range', 'huge',
    'mode', 'flag', 'mistyped-flag', 'field-as-flag', 'field-of-no-group',
    'trainer-flag', 'trainer-flag-with-hyphens', 'trainer-flag-alone',
    'trainer-flag-not-here', 'argument-of-trainer', 'argument-of-tokenizer',
    'trainer-field-of-group', 'trainer-field', 'epoch-for-steps',
    'word-for-switch', 'no-such-custom-task',
    'argument', 'task',
    'no-data-dir', 'no-such-data-dir',
    'arch', 'weights', 'group', 'nothing-to-report', 'nothing-to-evaluate',
    'nothing-to-predict',
    'no-source', 'empty-source', 'stored-source', 'input', 'task-alone',
    'label-nowhere', 'label-to-a-store', 'nothing-to-label',
    'majority', 'majority-of-no-task', 'format',
    'host', 'port', 'port-no-number', 'scratch', 'scheme',
    'data-scheme', 'shard-in-other-figures', 'shard', 'half-joined', 'address',
    'number',
    'joined-twice', 'distributed', 'doctor-of-several', 'estimate-of-several',
    'several-in-a-store',
    'search-seeds',
  ],
)  # fmt: skip
def test_a_wrong_argument(place, monkeypatch, capsys, arguments, message):
  before = _files(place)
  defaults = ['--config=config.py', '--workdir=work', '--mode=prepare']
  line = _mistake(monkeypatch, capsys, *defaults, *arguments)
  assert re.search(message, line), line
  assert _files(place) == before


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('--config=none.py', r"--config: .*No such file or directory: 'none\.py';"),
    ('--config=syntax.py', r'syntax\.py:1: invalid syntax'),
    (
      '--config=typo.py',
      r"typo\.py:\d+: .* no such key: 'modle'\. Did you mean \"model\" ins",
    ),
    (
      '--config=trainer.py',
      r"trainer\.py:\d+: .* no such key: 'lr'; here it is [^;]*$",
    ),
    ('--config=empty.py', r'get_config'),
    ('--config=text.py', r"text\.py:\d+: tasks: mood is .* as \('mood',\)$"),
    ('--config=import.py', r"import\.py:1: No module named 'not_there'"),
    (
      '--config=config.py:big',
      r"--config=config\.py: takes no argument, but 'big' comes after the"
      r' colon; give --config=config\.py$',
    ),
    (
      f'--config={_ROOT}/configs/bam.py:papr',
      r"--config: 'papr' after the colon is none of paper; give one",
    ),
    ('--config=empty_handed.py', r'--config: get_config\(\) of the file retu'),
    ('--config=dmo', r"--config: .*'dmo'; give .* ablations, bam, .*, demo,"),
    (
      '--config=none.py:paper',
      r"--config: .*No such file or directory: 'none\.py';",
    ),
    ('--mode=report', r'--config is missing; try --config=demo'),
    ('--config.seeds=(0,)', r'--config.seeds: needs --config, whose field'),
    ('--workdir=s3://a/b', r'--config is missing; try --config=demo'),
    ('--workdir=work', r'work/config.json: is missing: nothing was trained'),
  ],
  ids=[
    'missing', 'syntax', 'typo', 'trainer-field', 'without-get-config',
    'text-for-tuple', 'missing-import', 'no-argument',
    'argument', 'returns-nothing', 'name', 'missing-with-argument',
    'not-given', 'field-alone', 'only-in-store', 'never-trained',
  ],
)  # fmt: skip
def test_a_wrong_config_file(place, monkeypatch, capsys, argument, message):
  (place / 'syntax.py').write_text('def get_config(:\n')
  (place / 'empty.py').write_text('')
  (place / 'empty_handed.py').write_text('def get_config():\n  {}\n')
  typo = _CONFIG.replace('config.model.arch', 'config.modle')
  (place / 'typo.py').write_text(typo)
  trainer = _CONFIG.replace('config.model.arch', 'config.single.lr')
  (place / 'trainer.py').write_text(trainer)
  text = _CONFIG.replace("('mood', 'stars')", "'mood'")
  (place / 'text.py').write_text(text)
  (place / 'import.py').write_text('import not_there\n')
  line = _mistake(monkeypatch, capsys, argument)
  assert re.search(message, line), line


def test_options_of_the_trainer_lead_to_what_is_here():
  fields = {f'config.{field}' for field in config_lib.default_values()}
  for field in dataclasses.fields(config_lib.TaskConfig):
    fields.add(f'config.custom_tasks.TASK.{field.name}')
  own = {field.rpartition('.')[2] for field in fields}
  by_module = flags.FLAGS.flags_by_module_dict()
  own |= {flag.name for flag in by_module[command_line.__name__]}
  options = trainer_names.OPTIONS | trainer_names.ABSENT
  assert not own & {*options}
  for option, text in options.items():
    for name in re.findall(r'config\.\w+\.[\w.]*\w', text):
      assert name in fields, f'{option}: {name}'
    for name in re.findall(r'--(\w+)', text):
      assert name in flags.FLAGS, f'{option}: {name}'
  guide = (_ROOT / 'docs' / 'guides' / 'moving.md').read_text()
  rows = re.findall(r'^\| (.*?) \|', guide.partition('## From MT-DNN')[0], re.M)
  # A message names the page, so the page has the option.
  assert {*options} <= {*re.findall(r'(?:--|`)(\w+)', ' '.join(rows))}
  for option in {*re.findall(r'--(\w+)', ' '.join(rows))} - {*options}:
    with pytest.raises(errors.UserError, match=r'nearest is'):
      command_line.parse(['bam_jax', f'--{option}=1'])


@pytest.mark.parametrize(
  'arguments',
  [
    [f'--config={_ROOT}/configs/bam.py:paper'],
    ['--config=bam:paper'],
    ['--config', 'bam:paper'],
  ],
  ids=['file', 'name', 'two-arguments'],
)
def test_an_argument_of_a_config_and_fields(place, arguments):
  argv = ['bam_jax', *arguments, '--config.search.layer_decays=(0.8,)']
  with mock.patch.object(sys, 'argv', argv):
    command_line.parse(argv)
  config = config_lib.from_config_dict(command_line.CONFIG.value)
  assert config.name == 'bam_paper'
  assert len(config.seeds) == 20
  assert config.search.layer_decays == (0.8,)
  runs = search.plan_runs(config)
  # Nine tasks, three seeds, four learning rates.
  assert len(runs) == 9 * 3 * 4
  assert not {run.seed for run in runs} & {*config.seeds}


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('mood.tsv', None, r'mood\.tsv: No such file or directory; fix'),
    ('mood.tsv', b'', r'mood\.tsv: has no usable row'),
    (
      'mood.tsv',
      b'text\tlabel\nfine\tup\nso\tso\tup\n',
      r'mood\.tsv:3: 3 columns where the first line has 2; fix',
    ),
    (
      'mood.tsv',
      b'text\tlabel\nfine\tupp\n',
      r"mood\.tsv:2: .*'upp'.*'down', 'up'",
    ),
    ('mood.tsv', b'words\tlabel\nfine\tup\n', r"mood\.tsv:1: no column 'text'"),
    (
      'mood.tsv',
      b'text\tlabel\nfine\tup\ncaf\xe9\tup\n',
      r'mood\.tsv:3: not UTF-8 .*; convert the file',
    ),
    ('stars.tsv', b'text\tlabel\nso so\t5.5\n', r'stars\.tsv:2: .*5\.5'),
    ('stars.tsv', b'text\tlabel\nso so\tnan\n', r'stars\.tsv:2: .*nan'),
  ],
  ids=[
    'missing', 'empty', 'columns', 'label', 'header', 'utf-8', 'scale', 'nan',
  ],
)  # fmt: skip
def test_unusable_rows(place, monkeypatch, capsys, name, content, message):
  if content is None:
    (place / name).unlink()
  else:
    (place / name).write_bytes(content)
  before = _files(place)
  line = _mistake(monkeypatch, capsys, '--config=config.py', '--workdir=work')
  assert re.search(message, line), line
  after = _files(place)
  assert before == {path: after[path] for path in before}
  # Features of other tasks may have been made, those of this one not.
  task = name.removesuffix('.tsv')
  assert not [path for path in after if task in path.relative_to(place).parts]


def test_a_file_in_the_place_of_the_work_directory(place, monkeypatch, capsys):
  (place / 'file').write_text('mine')
  before = _files(place)
  line = _mistake(monkeypatch, capsys, '--config=config.py', '--workdir=file')
  assert re.search(r'file: File exists; choose a --workdir that can', line), (
    line
  )
  assert _files(place) == before


def test_a_work_directory_without_permission(place, monkeypatch, capsys):
  """Simulated, since permissions do not bind a superuser."""
  make = os.mkdir

  def refused(path, *arguments, **named):
    if 'closed' in Path(path).parts:
      raise PermissionError(errno.EACCES, 'Permission denied', str(path))
    make(path, *arguments, **named)

  monkeypatch.setattr(os, 'mkdir', refused)
  before = _files(place)
  line = _mistake(
    monkeypatch, capsys, '--config=config.py', '--workdir=closed/work'
  )
  assert re.search(r'closed/work: Permission denied; choose a --wor', line), (
    line
  )
  assert _files(place) == before


@pytest.mark.parametrize('mode', ['run', 'prepare', 'predict', 'merge'])
@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('features', 'features: cannot be read: Not a directory; give permission'),
    ('runs', 'runs: cannot be read: Not a directory; give permission'),
    ('LOCK/', 'LOCK: Is a directory; choose a --workdir'),
  ],
)
def test_what_cannot_be_read_in_a_work_directory(
  place, monkeypatch, capsys, mode, name, message
):
  path = place / 'work' / name
  path.mkdir() if name.endswith('/') else path.touch()
  line = _mistake(
    monkeypatch,
    capsys,
    '--config=config.py',
    '--workdir=work',
    f'--mode={mode}',
  )
  assert message in line


def test_a_file_system_that_fails_anywhere_below_a_work_directory(
  place, monkeypatch, capsys
):
  """As a library raises it, from wherever."""

  def failing(*unused_arguments):
    (place / 'work' / 'notes.txt' / 'a').read_bytes()

  monkeypatch.setattr(registry, 'resolve', failing)
  line = _mistake(monkeypatch, capsys, '--config=config.py', '--workdir=work')
  assert re.search(
    r'notes.txt/a: Not a directory; give permission, or mo', line
  )


@pytest.mark.parametrize(
  ('arguments', 'seeds', 'tasks'),
  [
    (['--config.seeds=(0, 1)', '--config.seeds=(2,)'], (2,), ('mood', 'stars')),
    (['--config.seeds=(0, 1)', '--config.seeds', '(3, 4)'], (3, 4), None),
    (['--config.seeds=3', '--config.seeds=4'], (4,), None),
    (
      ["--config.tasks=('stars',)", '--config.seeds=5', '--config.tasks=mood'],
      (5,),
      ('mood',),
    ),
    (['--config.seeds=(0, 1)', '--config.seeds=()'], (), None),
  ],
)
def test_a_tuple_that_is_given_twice_is_the_last_one(
  place, arguments, seeds, tasks, monkeypatch
):
  argv = ['bam_jax', '--config=config.py', *arguments]
  monkeypatch.setattr(sys, 'argv', argv)
  command_line.parse(argv)
  assert command_line.CONFIG.value.seeds == seeds
  if tasks:
    assert command_line.CONFIG.value.tasks == tasks


def test_features_are_made_and_kept(place, monkeypatch, capsys):
  """What the mistakes above are compared with: the same command without."""
  monkeypatch.setattr(
    sys,
    'argv',
    ['bam_jax', '--config=config.py', '--workdir=work', '--mode=prepare'],
  )
  main.run_main()
  made = {
    str(path.relative_to(place / 'work')) for path in _files(place / 'work')
  }
  for table in ('mood/train', 'mood/dev', 'stars/train', 'stars/dev'):
    assert f'features/{table}/manifest.json' in made
  assert {'notes.txt', 'config.json'} <= made
  # From now on the work directory tells the settings.
  doctor = _command(f'--workdir={place}/work', '--mode=doctor')
  assert doctor.returncode == 1, doctor.stderr
  found = (place / 'work' / 'doctor.md').read_text()
  assert 'mood' in found
  assert 'stars' in found


def test_doctor_ends_with_the_status_of_what_it_found(place, monkeypatch):
  monkeypatch.setattr(
    sys,
    'argv',
    ['bam_jax', '--config=config.py', '--workdir=new', '--mode=doctor'],
  )
  with pytest.raises(SystemExit) as end:
    main.run_main()
  # The dev rows are the training rows.
  assert end.value.code == 1
  made = {path.name for path in (place / 'new').iterdir()}
  assert made == {'doctor.json', 'doctor.md'}


def _command(*arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, '-m', 'bam_jax.main', *arguments],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.parametrize(
  ('arguments', 'output', 'status', 'reason'),
  [
    ('--help', '> /dev/full', 120, 'No space left on device'),
    ('--help', '>&-', 120, 'Bad file descriptor'),
    ('--help', '| true', 0, None),
    (
      '--config=config.py --mode=doctor',
      '> /dev/full',
      120,
      'No space left on device',
    ),
    ('--nope', '2> /dev/full', 2, None),
  ],
  ids=['full', 'closed', 'pipe', 'doctor', 'errors'],
)
def test_output_that_cannot_be_written_is_one_line(
  place, arguments, output, status, reason
):
  command = f'{sys.executable} -m bam_jax.main {arguments} {output}'
  done = subprocess.run(
    ['bash', '-c', f'{command}; exit ${{PIPESTATUS[0]}}'],
    cwd=place, env=os.environ | {'PYTHONPATH': str(_ROOT)},
    stderr=subprocess.PIPE, text=True, check=False,
  )  # fmt: skip
  line = f'bam_jax: standard output: {reason}\n' if reason else ''
  assert (done.returncode, done.stderr) == (status, line)


def test_the_installed_command_is_the_module(tmp_path):
  """A signal ends it too, wherever it is: see `enable_forced_exit`."""
  setup_cfg = configparser.ConfigParser()
  setup_cfg.read(_ROOT / 'setup.cfg')
  commands = setup_cfg['options.entry_points']['console_scripts']
  target = re.search('^bam-jax = (.*)$', commands, re.MULTILINE)[1]
  module, function = target.split(':')
  program = (
    f'import sys, time; from bam_jax import main; import {module} as module\n'
    'main._run = lambda signal: print("here", flush=True) or time.sleep(60)\n'
    f'module.{function}()'
  )
  with subprocess.Popen(
    [sys.executable, '-c', program], cwd=_ROOT, stdout=subprocess.PIPE,
    stderr=subprocess.PIPE, text=True,
  ) as process:  # fmt: skip
    assert process.stdout.readline() == 'here\n'
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
  assert process.returncode == 75
  assert said == (
    'bam_jax: stopped by SIGTERM; run the same command again to continue\n'
  )


def test_help_tells_modes_and_examples():
  done = _command('--help')
  assert done.returncode == 0
  assert done.stderr == ''
  for mode in command_line.MODES:
    assert re.search(rf'^  {mode} +\w', done.stdout, re.MULTILINE), mode
  examples = re.findall(r'python -m bam_jax.main --config=(\S+)', done.stdout)
  assert len(examples) >= 3
  for path in examples:
    assert (_ROOT / 'configs' / f'{path}.py').is_file(), path


def test_a_cluster_that_is_not_there_ends_the_process_with_one_line(tmp_path):
  done = _command(
    '--config=configs/demo.py', f'--workdir={tmp_path}', '--distributed=auto'
  )
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert 'found no Cloud TPU, Slurm, GKE or Open MPI here' in line


def test_a_port_that_is_taken_ends_the_process_with_one_line(tmp_path):
  # `create_server` would let others have it too.
  with socket.socket(socket.AF_INET6) as taken:
    taken.bind(('::', 0))
    taken.listen()
    done = _command(
      '--config=tests/configs/tiny.py',
      f'--workdir={tmp_path}',
      '--mode=prepare',
      f'--coordinator=localhost:{taken.getsockname()[1]}',
      '--num_processes=1',
      '--process_id=0',
    )
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert re.search(
    'bam_jax: --coordinator=localhost.*in use.*give a free port', line
  )


@pytest.mark.parametrize(
  ('number', 'waits', 'missing'),
  [
    (
      0,
      'process 0 of 3 waits at .* for the others',
      'not all processes have come',
    ),
    (
      1,
      'process 1 of 3 waits at .* for the others',
      'process 0 does not answer',
    ),
  ],
)
def test_processes_that_never_start_are_named(tmp_path, number, waits, missing):
  address = starting.free_address()
  done = _command(
    '--config=tests/configs/tiny.py',
    f'--workdir={tmp_path}',
    f'--coordinator={address}',
    '--num_processes=3',
    f'--process_id={number}',
    '--join_seconds=2',
  )
  assert done.returncode == 75
  first, last = done.stderr.splitlines()
  assert re.fullmatch(rf'{waits}, 2 s at most \(--join_seconds\)', first)
  assert last.startswith(
    f'bam_jax: --coordinator={address}: after 2 s {missing}; start all'
  )


def test_a_mistake_ends_the_process_with_2_and_one_line():
  done = _command('--config=configs/demo.py', '--config.seed=3')
  assert done.returncode == 2
  assert done.stdout == ''
  assert done.stderr == (
    "bam_jax: --config: no such key: 'seed'; here it is config.seeds"
    ' (docs/guides/moving.md)\n'
  )


@pytest.mark.parametrize('platform', ['cuda', 'gpu', 'tpu', 'nope'])
def test_a_platform_that_is_not_here_is_told_before_any_work(place, platform):
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'bam_jax.main'),
      *('--config=config.py', '--workdir=new'),
    ],
    cwd=place,
    env=os.environ | {'PYTHONPATH': str(_ROOT), 'JAX_PLATFORMS': platform},
    capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 2, done.stderr
  said = done.stderr.splitlines()[-1]
  assert said.startswith(f'bam_jax: devices: JAX cannot start {platform} (')
  assert 'Traceback' not in done.stderr
  assert not (place / 'new' / 'features').exists()


@pytest.mark.parametrize('name', ['', '.', '..', '../x', '/x', 'a/../../x'])
def test_a_name_without_a_folder_of_its_own(place, monkeypatch, capsys, name):
  before = _files(place)
  arguments = ['--config=config.py', f'--config.name={name}', '--mode=prepare']
  line = _mistake(monkeypatch, capsys, *arguments)
  assert (
    f'config.name: {name!r} cannot be the name of a folder in work/' in line
  )
  assert _files(place) == before


def test_a_port_in_other_figures(place, monkeypatch, capsys):
  for port in ('\u0661\u0662', '123456', '1_0', ''):
    line = _mistake(
      monkeypatch, capsys, '--config=config.py', f'--coordinator=here:{port}',
      '--num_processes=2', '--process_id=0',
    )  # fmt: skip
    assert 'is not HOST:PORT' in line


def test_missing_data_are_named_before_weights_are_looked_for(
  place, monkeypatch, capsys
):
  pytest.importorskip('tensorflow_datasets')
  # TensorFlow is not found, as where it is not installed.
  find_spec = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name, *rest: (
      None if name == 'tensorflow' else find_spec(name, *rest)
    ),
  )
  line = _mistake(
    monkeypatch,
    capsys,
    '--config=config.py',
    "--config.tasks=('rte', 'stsb')",
    '--config.data.source=tfds',
    f'--config.data.tfds_dir={place}',
    '--config.model.init=team/absent',
  )
  assert f'glue/rte, glue/stsb not prepared in {place}, and tensor' in line
