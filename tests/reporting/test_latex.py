"""report.tex: balanced, escaped, as wide as it says, and LaTeX takes it."""

import re
import shutil
import subprocess

import pytest

from bam_jax import config as config_lib
from bam_jax import escape
from bam_jax.reporting import report
from bam_jax.tasks import task as task_lib
from tests.reporting import plans

_EVIL = r'50% of {a_b} & #1 ~ ^ \cmd $x$ | <b> → λ'


_TASKS = task_lib.TaskTable(
  (plans.make_task('my_task'), plans.make_task('other'))
)


@pytest.fixture(name='text', scope='module')
def _text(tmp_path_factory):
  """Nine seeds of which the student's are far above, and a study."""
  tmp_path = tmp_path_factory.mktemp('report')
  own = {
    'slow': config_lib.VariantConfig(like='single_to_multi'),
    **{
      f'other_{i}': config_lib.VariantConfig(like='multi', tasks=('other',))
      for i in range(2)
    },
  }
  gains = {'single': 0.0, 'multi': 0.0, 'single_to_multi': 9.0}
  gains |= dict.fromkeys(own, 4.0)
  config = config_lib.Config(
    name=_EVIL,
    tasks=_TASKS.names,
    variants=tuple(gains),
    custom_variants=own,
    seeds=tuple(range(9)),
  )
  runs = [
    plans.make_run(
      variant, seed, task, {'dev': {'accuracy': 50.0 + gain + seed / 10}}
    )
    for variant, gain in gains.items()
    for seed in range(9)
    for task in (config.custom_variants.get(variant) or config).tasks
    or config.tasks
  ]
  report.write(tmp_path, config, _TASKS, runs, {'note': _EVIL})
  return (tmp_path / 'report.tex').read_text(encoding='utf-8')


def test_main_table_has_stars_raised_and_the_highest_bold(text):
  assert r'Single$\to$Multi & \textbf{59.4}$^{***}$ & \textbf{59.4}' in text
  assert r' & my\_task & other & average \\' in text
  assert r' & \scriptsize accuracy & \scriptsize accuracy &' in text
  # As wide as a number with three stars, so that figures are aligned.
  assert r'Single & 50.4$^{\phantom{***}}$ & 50.4' in text
  assert 'n = 9 seeds' in text and "by Holm's method, in: " in text


def test_own_variants_and_studies_have_their_tables(text):
  labels = re.findall(r'\\label\{tab:(\w+)', text)
  assert labels == ['main', 'ablations', 'study']
  assert r'slow & Single$\to$Multi & average & 54.4 & $-$5.0$^{**}$' in text


def test_every_row_has_the_columns_of_its_table(text):
  tables = re.findall(
    r'\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}', text, re.S
  )
  assert len(tables) == 3
  for columns, body in tables:
    rows = re.findall(r'^(.*) \\\\$', body, re.M)
    assert len(rows) > 2
    for row in rows:
      assert len(re.findall(r'(?<!\\)&', row)) == len(columns) - 1


def test_braces_dollars_and_environments_match(text):
  body = re.sub(r'^%.*$', '', text, flags=re.M)
  body = re.sub(r'\\[{}$&#%_\\]', '', body)  # What is escaped opens nothing.
  depth = 0
  for letter in body:
    depth += {'{': 1, '}': -1}.get(letter, 0)
    assert depth >= 0
  assert depth == 0
  assert body.count('$') % 2 == 0
  assert not re.search(r'[%#]', body)
  begun = re.findall(r'\\(begin|end)\{([a-z*]+)\}', body)
  opened = []
  for what, name in begun:
    if what == 'begin':
      opened.append(name)
    else:
      assert opened.pop() == name
  assert opened == []


@pytest.mark.parametrize(
  ('plain', 'escaped'),
  [
    ('a_b & 50%', r'a\_b \& 50\%'),
    ('\\x{$}', r'\textbackslash{}x\{\$\}'),
    ('~^', r'\textasciitilde{}\textasciicircum{}'),
    ('Single→Multi\n λ', r'Single$\to$Multi $\lambda$'),
  ],
)
def test_text_is_escaped(plain, escaped):
  assert escape.latex(plain) == escaped


@pytest.mark.skipif(not shutil.which('pdflatex'), reason='no LaTeX here')
def test_latex_takes_it(text, tmp_path):
  (tmp_path / 'report.tex').write_text(text)
  (tmp_path / 'paper.tex').write_text(
    '\\documentclass{article}\\usepackage[utf8]{inputenc}'
    '\\usepackage{booktabs}\\begin{document}\\input{report}\\end{document}'
  )
  result = subprocess.run(
    ['pdflatex', '-interaction=nonstopmode', '-halt-on-error', 'paper.tex'],
    cwd=tmp_path,
    capture_output=True,
    check=False,
  )
  assert result.returncode == 0, result.stdout[-2000:]
