"""The doctor's command: its exit status and its files."""

import json
from pathlib import Path

import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.doctor import command as doctor

_GOOD = 'text\tlabel\na fine day\tup\na dull day\tdown\n'


def _run(folder: Path, **changes) -> int:
  config = config_lib.default_config()
  config.tasks = ('mood',)
  config.custom_tasks.mood = config_lib.custom_task(
    labels=('down', 'up'), text=('text',), train='train.tsv', dev='dev.tsv'
  )
  config.data.dir = str(folder)
  config.update_from_flattened_dict(changes)
  return doctor.run(config_lib.from_config_dict(config), folder / 'work')


@pytest.fixture
def folder(tmp_path) -> Path:
  (tmp_path / 'train.tsv').write_text(_GOOD)
  (tmp_path / 'dev.tsv').write_text(_GOOD.replace('day', 'night'))
  return tmp_path


@pytest.mark.parametrize(
  ('dev', 'rows', 'code', 'severity'),
  [
    (_GOOD.replace('day', 'night'), 2, 0, None),
    (_GOOD.replace('day', 'night') + 'a fine night\tup\n', 3, 0, 'note'),
    (_GOOD, 2, 1, 'warning'),
    (_GOOD + 'so so\tsideways\n', 2, 3, 'error'),
  ],
  ids=['good', 'note', 'warning', 'error'],
)
def test_exit_status_and_files(folder, capsys, dev, rows, code, severity):
  (folder / 'dev.tsv').write_text(dev)
  assert _run(folder) == code
  assert {p.name for p in folder.rglob('*')} == {
    'train.tsv', 'dev.tsv', 'work', 'doctor.json', 'doctor.md',
  }  # fmt: skip
  report = json.loads((folder / 'work' / 'doctor.json').read_text())
  assert report['exit_code'] == code
  severities = [found['severity'] for found in report['findings']]
  assert severities[:1] == ([severity] if severity else [])
  assert [split['rows'] for split in report['splits']] == [2, rows]
  printed = capsys.readouterr().out
  markdown = (folder / 'work' / 'doctor.md').read_text()
  for found in report['findings']:
    for text in (printed, markdown):
      assert found['check'] in text
      for place in found['places']:
        assert place in text


def test_brackets_and_bars_are_neither_markup_nor_columns(folder, capsys):
  (folder / 'dev.tsv').write_text(_GOOD + 'so so\t[bold]a|b[/bold]\n')
  assert _run(folder) == 3
  assert '[bold]a|b[/bold]' in capsys.readouterr().out.replace('\n', '')
  markdown = (folder / 'work' / 'doctor.md').read_text()
  assert '[bold]a\\|b[/bold]' in markdown
  tables = [line for line in markdown.splitlines() if line.startswith('| err')]
  assert [line.replace('\\|', '').count('|') for line in tables] == [7]


def test_without_a_tokenizer_all_but_tokens_is_told(folder, caplog):
  assert _run(folder, **{'model.init': 'none/there-at-all/x'}) == 1
  assert 'no such directory' in caplog.text
  report = json.loads((folder / 'work' / 'doctor.json').read_text())
  assert report['tokens'].startswith('Tokens are not counted: config.model.ini')
  for split in report['splits']:
    assert split['lengths']['tokens'] == []
    assert split['lengths']['characters'][0] > 0


def test_tokens_are_those_of_the_configured_vocabulary(folder):
  vocabulary = folder / 'words.txt'
  vocabulary.write_text('[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nday\n##y\nda\n')
  # A warning: it does not know a fifth of the tokens.
  assert _run(folder, **{'model.vocab': str(vocabulary)}) == 1
  report = json.loads((folder / 'work' / 'doctor.json').read_text())
  # [CLS] a [UNK] day [SEP]
  assert report['splits'][0]['lengths']['tokens'] == [5, 5, 5, 5]


def test_rows_that_are_cut_are_counted(folder):
  """Of 8 tokens, [CLS] a b c d e f [SEP] keeps all and a longer row loses."""
  vocabulary = folder / 'words.txt'
  vocabulary.write_text('[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n')
  rows = ['a ' * 6, 'a ' * 7, 'a ' * 10, 'a ']
  labelled = [f'{row}\t{"up" if i else "down"}\n' for i, row in enumerate(rows)]
  (folder / 'train.tsv').write_text(''.join(['text\tlabel\n', *labelled]))
  changes = {'model.vocab': str(vocabulary), 'data.max_length': 8}
  assert _run(folder, **changes) == 1
  report = json.loads((folder / 'work' / 'doctor.json').read_text())
  lengths = report['splits'][0]['lengths']
  assert lengths['tokens'][-1] == 12
  assert lengths['rows_cut'] == 0.5
  # 8 + 9 + 12 + 3 tokens, of which 1 and 4 are cut.
  assert lengths['tokens_cut'] == 5 / 32
  (cut,) = (f for f in report['findings'] if f['check'] == 'truncation')
  assert cut['places'] == ['train.tsv:3', 'train.tsv:4']


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'tasks': ('moood',)}, 'moood'),
    ({'data.max_length': 513}, 'max_length=513: the encoder has 512 positions'),
    ({'model.arch': 'huge'}, "config.model.arch: 'huge' is none of"),
    (
      {
        'custom_tasks.mood.windows': 'mean',
        'custom_tasks.mood.stride': 127,
        'model.vocab': 'words.txt',
      },
      'stride=127: windows of config.data.max_length=128 hold 126 tokens of te',
    ),
  ],
)
def test_what_no_run_could_begin_with_is_a_mistake(
  folder, changes, message, monkeypatch
):
  monkeypatch.chdir(folder)
  (folder / 'words.txt').write_text('[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n')
  with pytest.raises(errors.UserError, match=message):
    _run(folder, **changes)


def test_scores_of_few_whole_numbers_are_counted_by_these(folder):
  rows = '\n'.join(f'text {i}\t{score}' for i, score in enumerate((1, 2, 5, 5)))
  for split in ('train', 'dev'):
    (folder / f'{split}.tsv').write_text(f'text\tlabel\n{split} {rows}\n')
  _run(folder, **{
    'custom_tasks.mood.kind': 'regression',
    'custom_tasks.mood.labels': (),
    'custom_tasks.mood.scale': (1.0, 5.0),
  })  # fmt: skip
  report = json.loads((folder / 'work' / 'doctor.json').read_text())
  shares = report['splits'][0]['shares']
  assert shares == {'1': 0.25, '2': 0.25, '3': 0, '4': 0, '5': 0.5}
