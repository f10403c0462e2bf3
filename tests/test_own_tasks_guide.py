"""The guides to own tasks run from their first lines to their last."""

import dataclasses
from pathlib import Path
import re
import sys

from absl import flags
from absl.testing import flagsaver
import documents
import pytest

from bam_jax import command_line
from bam_jax import config as config_lib
from bam_jax import main
from bam_jax.training import setup

# ml_collections loads a config file in the old way.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module')

_GUIDES = documents.ROOT / 'docs' / 'guides'
_OWN_TASKS = _GUIDES / 'own_tasks.md'
# The others go on with what the commands of the first have left.
_PAGES = (
  _OWN_TASKS, _GUIDES / 'data.md', _GUIDES / 'settings.md',
  _GUIDES / 'scores.md',
)  # fmt: skip
# What makes a plan small; the rest is as written.
_TINY = (
  '--config.model.init=',
  '--config.model.arch=tiny',
  '--config.model.num_layers=1',
  "--config.variants=('single', 'single_to_multi')",
  '--config.seeds=(0,)',
  '--config.single.max_steps=1',
  '--config.single.batch_size=4',
  '--config.multi.max_steps=1',
  '--config.multi.batch_size=4',
  '--config.packing.row_buckets=(8,)',
  '--config.packing.eval_rows=8',
  '--config.train.tensorboard=False',
  '--config.mesh.data=1',
)


@pytest.fixture
def place(tmp_path, monkeypatch, restored_logs):
  """A folder with the files that the guides show."""
  for page in _PAGES:
    for name, text in documents.files(page).items():
      (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / name).write_text(text)
  monkeypatch.chdir(tmp_path)
  # It would change JAX's settings for all tests after this one.
  monkeypatch.setattr(setup, 'configure_jax', lambda config, workdir: None)
  return tmp_path


def _run(monkeypatch, *arguments: str) -> int:
  """Status of the program, run in this process."""
  # ml_collections would load a config into the module of the last one.
  sys.modules.pop('config_config', None)
  monkeypatch.setattr(sys, 'argv', ['bam_jax', *arguments])
  status = 0
  with flagsaver.flagsaver():
    try:
      main.run_main()
    except SystemExit as end:
      status = end.code
  flags.FLAGS.unparse_flags()
  return status


def test_it_runs(place, monkeypatch, tmp_path_factory):
  """Every command as written but for the size leaves what it promises."""
  modes = set()
  commands = [
    command
    for page in _PAGES
    for command in documents.spelt_out(tmp_path_factory.mktemp('sh'), page)
  ]
  for command in commands:
    arguments = command.after('-m', 'bam_jax.main')
    # Otherwise the work directory has the settings, and the size.
    has_config = any(word.startswith('--config=') for word in arguments)
    size = _TINY if has_config else ()
    assert _run(monkeypatch, *arguments, *size) == 0, command
    modes |= {word for word in arguments if word.startswith('--mode=')}
  # docs/guides/serve.md has the server, small_students.md the labels.
  others = set(command_line.MODES) - {'run', 'serve', 'label'}
  assert modes == {f'--mode={mode}' for mode in others}
  for span in [span for page in _PAGES for span in documents.spans(page)]:
    if re.fullmatch(r'work/[\w./-]+', span):
      assert (place / span).exists(), span
  with_rows = place / 'work/support/predictions/single_to_multi-s0'
  lines = (with_rows / 'urgency-test.tsv').read_text().splitlines()
  assert lines[0].split('\t') == ['uid', 'prediction', 'low', 'normal', 'high']
  assert lines[1].startswith('urgency/test/0\t')


def test_its_table_has_all_fields_of_a_task():
  table = _OWN_TASKS.read_text().split('\n| field | meaning |\n')[1]
  names = [
    name
    for row in table.split('\n\n')[0].splitlines()
    for name in re.findall(r'`(\w+)`', row.split(' | ')[0])
  ]
  assert sorted(names) == sorted(
    field.name for field in dataclasses.fields(config_lib.TaskConfig)
  )


def _replaced(name: str, old: str, new: str) -> None:
  path = Path('my_data', name)
  text = path.read_text(encoding='latin-1')
  assert old in text
  path.write_text(text.replace(old, new, 1), encoding='latin-1')


# What is done to the guide's files, and the arguments given then.
_MISTAKES = {
  'no such folder': (None, '--config.data.dir=my_dta'),
  'label': (('urgency/train.tsv', 'from.\tlow', 'from.\tlwo'),),
  'tab': (('urgency/train.tsv', 'Nobody here', 'Nobody\there'),),
  'column': (('urgency/dev.tsv', 'body', 'text'),),
  'name twice': (('urgency/train.tsv', 'body', 'subject'),),
  'encoding': (('urgency/train.tsv', 'Bergen', 'Troms\xf8'),),
  'scale': (('stars/train.jsonl', '"stars": 5', '"stars": 50'),),
  'field': (('stars/dev.jsonl', '"review": "A', '"text": "A'),),
  'json': (('stars/dev.jsonl', '{"review": "A', "{'review': \"A"),),
  'task': (None, "--config.tasks=('urgncy',)"),
  'empty text': (
    ('urgency/more.jsonl', 'All is well again.', ''),
    "--config.data.unlabelled=('urgency=urgency/more.jsonl',)",
  ),
  'changed': (('urgency/train.tsv', 'Invoice', 'Bill'),),
}


@pytest.mark.parametrize('mistake', _MISTAKES)
def test_it_tells_what_is_said_of(mistake, place, monkeypatch, capsys):
  change, *arguments = _MISTAKES[mistake]
  command = ('--config=support.py', '--mode=prepare', *_TINY, *arguments)
  if mistake == 'changed':
    assert _run(monkeypatch, *command) == 0
    run = Path('work/support/runs/single-s0-urgency')
    run.mkdir(parents=True)
    (run / 'config.json').write_text('{"run.tasks": ["urgency"]}')
    (run / 'DONE').touch()
  if change:
    _replaced(*change)
  assert _run(monkeypatch, *command) == 2
  line = capsys.readouterr().err.splitlines()[-1].removeprefix('bam_jax: ')
  rows = [
    row.split(' | ')[0].removeprefix('| ')
    for row in _OWN_TASKS.read_text().split('\n| line |')[1].splitlines()
    if row.startswith('| `')
  ]
  assert len(rows) == len(_MISTAKES)
  assert f'`{line}`' in rows
