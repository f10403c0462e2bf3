"""What the README promises about commands and switches holds."""

from pathlib import Path
import re

from bam_jax import config as config_lib
from bam_jax import schema

_ROOT = Path(__file__).parent.parent
_README = (_ROOT / 'README.md').read_text()
_FIDELITY = (_ROOT / 'docs' / 'fidelity.md').read_text()


def _section(title):
  return _README.split(f'\n## {title}\n')[1].split('\n## ')[0]


def test_quick_start_is_two_commands_of_one_line():
  blocks = re.findall(r'```bash\n(.*?)```', _README, re.DOTALL)
  assert blocks == re.findall(
    r'```bash\n(.*?)```', _section('Quick start'), re.DOTALL
  )
  run, test = blocks
  assert run.count('\n') == test.count('\n') == 1
  assert run.rstrip().endswith(
    '.venv/bin/python -m bam_jax.main --config=configs/demo.py'
  )
  assert test.rstrip().endswith('.venv/bin/python -m pytest -n auto')


def test_every_switch_of_the_fidelity_table_exists_with_its_default():
  values = schema.flatten(config_lib.Config())
  rows = [line for line in _FIDELITY.splitlines() if '|' in line]
  seen = 0
  for row in rows[2:]:
    cell = row.split('|')[-2]
    default = re.search(r'\*\*(\S+?)\*\*', cell)
    for name in re.findall(r'`(\w+\.[\w{},]+)`', cell):
      stem, _, choices = name.rstrip('}').partition('{')
      for key in [stem + c for c in choices.split(',')] if choices else [stem]:
        assert key in values, f'{key} is no field'
        if default:
          assert str(values[key]) == default[1]
        seen += 1
  assert seen >= 15


def test_modes_and_configs_that_are_named_exist():
  for path in re.findall(r'configs/\w+\.py', _README):
    assert (_ROOT / path).is_file()
