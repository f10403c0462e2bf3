"""The report: medians and averages by hand, and files a browser can trust."""

import csv
import dataclasses
import html.parser
import json
import math
import os
import re

import numpy as np
import pandas as pd
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import fields as fields_lib
from bam_jax.reporting import curves
from bam_jax.reporting import figures
from bam_jax.reporting import report
from bam_jax.tasks import task as task_lib
from tests.reporting import plans

_VOID = {'meta', 'wbr'}
_PAIR = ('dev_m', 'dev_mm')
_TASKS = task_lib.TaskTable(
  (
    plans.make_task('word', metrics=('f1', 'accuracy')),
    plans.make_task('pair', dev_splits=_PAIR),
    plans.make_task('odd', in_average=False),
  )
)


def _seed(variant, seed, f1, accuracy, matched, mismatched, odd=10.0, **more):
  word = {'dev': {'f1': f1, 'accuracy': accuracy}}
  pair = {'dev_m': {'accuracy': matched}, 'dev_mm': {'accuracy': mismatched}}
  return [
    plans.make_run(variant, seed, 'word', word, **more),
    plans.make_run(variant, seed, 'pair', pair, **more),
    plans.make_run(variant, seed, 'odd', {'dev': {'accuracy': odd}}, **more),
  ]


# Averages by hand. Paper, (accuracy + matched) / 2: 70, 75, 65. GLUE,
# ((f1 + accuracy) / 2 + (matched + mismatched) / 2) / 2: 71, 74, 63.5.
_SINGLE = [
  *_seed('single', 0, 62.0, 60.0, 80.0, 82.0),
  *_seed('single', 1, 58.0, 60.0, 90.0, 88.0),
  *_seed('single', 2, 40.0, 50.0, 80.0, 84.0),
]
# Paper: 72, 78, 66. GLUE: 71, 74, 68.
_MULTI = [
  *_seed('multi', 0, 60.0, 64.0, 80.0, 80.0),
  *_seed('multi', 1, 60.0, 66.0, 90.0, 80.0),
  *_seed('multi', 2, 60.0, 52.0, 80.0, 80.0),
]


# A variant over one of the tasks.
_SOME = [
  plans.make_run('some', seed, 'word', {'dev': {'f1': 1.0, 'accuracy': 2.0}})
  for seed in range(3)
]
_WITH_SOME = {
  'variants': ('single', 'some'),
  'custom_variants': {
    'some': config_lib.VariantConfig(like='multi', tasks=('word',))
  },
}


def _config(**fields):
  defaults = {
    'tasks': _TASKS.names,
    'variants': ('single', 'multi'),
    'seeds': (0, 1, 2),
  }
  return config_lib.Config(**(defaults | fields))


def _write(tmp_path, runs, notes=None, **fields):
  report.write(tmp_path, _config(**fields), _TASKS, runs, notes or {})
  texts = {
    name: (tmp_path / name).read_text(encoding='utf-8')
    for name in ('report.json', 'report.md', 'report.html', 'scores.csv')
  }
  # Cells of Markdown are padded to the width of their column.
  texts['report.md'] = re.sub(r'(?<=\|) +| +(?=\|)', ' ', texts['report.md'])
  return texts


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
  """The files about both variants, by name."""
  notes = {'pretrained weights': 'none: random encoder'}
  return _write(tmp_path_factory.mktemp('report'), _MULTI + _SINGLE, notes)


def test_remarks_say_what_own_variants_change(tmp_path):
  own = config_lib.VariantConfig(
    like='single',
    teacher='multi',
    start='some',
    changes={'single': {'epochs': 2.0}, 'distill': {'constant': 0.5}},
  )
  variants = _WITH_SOME['custom_variants'] | {'mine': own}
  runs = [plans.make_run('mine', 0, 'word', {'dev': {'f1': 1, 'accuracy': 2}})]
  fields = {'variants': ('some', 'mine'), 'custom_variants': variants}
  text = _write(tmp_path, [*_SOME, *runs], **fields)['report.html']
  assert (
    'some: like Multi, on word. mine: like Single, taught by Multi, starting'
    ' from some, with single.epochs=2.0, distill.constant=0.5.'
  ) in text
  assert 'Searched:' not in text


def _baseline(word, matched, odd):
  """The scores of a baseline by task, as its record has them."""
  return {
    'word': {'dev': {'f1': 50.0, 'accuracy': word}},
    'pair': {'dev_m': {'accuracy': matched}, 'dev_mm': {'accuracy': 0.0}},
    'odd': {'dev': {'accuracy': odd}},
  }


def test_first_sentences_name_baselines_that_no_variant_is_above(tmp_path):
  # Medians of the variants: word 60 and 64, pair 80 and 80, average 70 and 72.
  found = {
    'majority': _baseline(64.0, 79.0, math.nan),  # 71.5
    'frozen_encoder': _baseline(63.9, 80.3, 9.9),  # 72.1
  }
  records = {
    task: {
      'scores': {name: scores[task] for name, scores in found.items()},
      'undefined': {},
    }
    for task in _TASKS.names
  }
  report.write(
    tmp_path, _config(), _TASKS, [*_SINGLE, *_MULTI], {}, (), records
  )
  summary = json.loads((tmp_path / 'report.json').read_text())['baselines']
  assert summary['majority']['unbeaten'] == {'word': 64.0}
  assert summary['majority']['lead'] == {'word': 0.0}
  assert summary['frozen_encoder']['lead'] == pytest.approx(
    {'average': 0.1, 'pair': 0.3}
  )
  assert summary['frozen_encoder']['unbeaten'] == {
    'average': pytest.approx(72.1), 'pair': 80.3
  }  # fmt: skip
  # Of an undefined score outside the average the average is not undefined.
  assert summary['majority']['average'] == 71.5
  text = (tmp_path / 'report.md').read_text()
  for sentence in (
    'No variant is above Majority, which needs no training run: word 64.0.',
    'No variant is above Frozen encoder, which needs no training run: average'
    ' 72.1, pair 80.3. It can be served: docs/guides/settings.md.',
  ):
    assert sentence in text
  assert '**72.1**' in text  # The highest of its column.


def _contents(folder):
  return {path.name: path.read_bytes() for path in folder.glob('[rs]*.*')}


class _Page(html.parser.HTMLParser):
  """Checks that tags close, and keeps attributes, text and cells."""

  def __init__(self, text):
    super().__init__()
    self.open, self.attributes, self.cells, self.text = [], [], [], ''
    self.feed(text)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.attributes += [(tag, *attr) for attr in attrs]
    if tag not in _VOID:
      self.open.append(tag)
    if tag in ('td', 'th'):
      self.cells.append('')

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data
    if {'td', 'th'} & set(self.open):
      self.cells[-1] += data


def test_medians_and_averages_are_those_computed_by_hand(texts):
  found = json.loads(texts['report.json'])
  assert list(found['variants']) == ['single', 'multi']
  single = found['variants']['single']
  assert single['seeds'] == 3
  assert single['tasks'] == {
    'word': {'f1': 58.0, 'accuracy': 60.0},
    'pair': {'accuracy': 80.0, 'accuracy (dev_mm)': 84.0},
    'odd': {'accuracy': 10.0},
  }
  # The median of the averages is not the average of the medians (71).
  assert single['average'] == 70.0
  assert single['glue_average'] == 71.0
  assert found['variants']['multi']['average'] == 72.0
  assert found['per_seed']['single']['1']['average'] == 75.0


def test_spread_over_seeds_is_told_in_every_format(texts):
  found = json.loads(texts['report.json'])['statistics']['single']
  # Averages of 65, 70, 75; all three are on one side once in 4 times.
  assert found['average'] == {
    'seeds': 3, 'median': 70.0, 'mean': 70.0, 'deviation': 5.0,
    'low': 65.0, 'high': 75.0, 'coverage': 0.75,
  }  # fmt: skip
  assert set(found) == {*_TASKS.names, 'average'}
  line = [
    'average',
    'one metric',
    'Single',
    '3',
    '70.00',
    '65.00 to 75.00 (75%)',
  ]
  line += ['70.00', '5.00']
  assert f'| {" | ".join(line)} |' in texts['report.md'].splitlines()
  cells = _Page(texts['report.html']).cells
  start = cells.index('65.00 to 75.00 (75%)') - 5
  assert cells[start : start + 8] == line


def test_pairs_are_told_in_every_format(texts):
  (table,) = json.loads(texts['report.json'])['pairs']
  assert table['kind'] == 'multi_task'
  # The median of the 9 differences of 64, 66, 52 and 60, 60, 50 is 4.
  line = ['Multi', 'Single', 'word', '3', '64.0', '+4.0', '—']
  assert f'| {" | ".join(line)} | ' in texts['report.md']
  page = _Page(texts['report.html'])
  start = page.cells.index('+4.0') - 5
  assert page.cells[start : start + 7] == line
  assert 'Not enough seeds for a star: 4 tests at once need 5 seeds.' in (
    page.text
  )


def test_an_even_number_of_seeds_takes_the_middle(tmp_path):
  runs = [run for run in _SINGLE if run.seed < 2]
  text = _write(tmp_path, runs, variants=('single',), seeds=(0, 1))
  single = json.loads(text['report.json'])['variants']['single']
  assert single['average'] == 72.5
  assert single['tasks']['pair']['accuracy'] == 85.0


def test_markdown_shows_scores_differences_and_what_was_run(texts):
  text = texts['report.md']
  lines = text.splitlines()
  # Columns in which all are equal have no highest.
  assert '| Single | 60.0 | 80.0 | 10.0 | 70.0 | 71.0 |' in lines
  assert '| Multi | **64.0** | 80.0 | 10.0 | **72.0** | 71.0 |' in lines
  assert '| pair | accuracy (dev_mm) | 84.0 | 80.0 |' in lines
  assert '- pretrained weights: none: random encoder' in lines
  assert '- In no average: odd.' in lines
  assert '- seeds: [0, 1, 2]' in lines
  assert 'word by f1 and accuracy, pair over dev_m and dev_mm' in text
  assert 'n = 3 seeds: each number is the median of them' in text


def test_plots_are_open_and_before_what_it_was_run_with(texts):
  text = texts['report.html']
  plots, rest = text.split('<h2>Plots</h2>')[1].split('<h2>What it was run')
  assert plots.count('<figure>') == plots.count('<h3>') >= 2
  assert '<details' not in plots and '<figure>' not in rest


def test_one_seed_has_no_tables_and_plots_of_tests(tmp_path):
  runs = [run for run in _SINGLE + _MULTI if run.seed == 0]
  student = [dataclasses.replace(r, variant='single_to_multi') for r in runs]
  variants = ('single', 'multi', 'single_to_multi')
  texts = _write(tmp_path, runs + student, variants=variants, seeds=(0,))
  assert not (tmp_path / 'report_effects.png').exists()
  assert re.findall('^## (.*)', texts['report.md'], re.M) == [
    'Every metric',
    'What it was run with',
    'Configuration, where it is not the default',
  ]


@pytest.mark.parametrize(
  ('drop', 'seeds', 'sentence'),
  [
    (lambda r: (r.seed, r.task) == (1, 'pair'), 3, 'seed 1 lacks pair.'),
    (lambda r: r.seed == 2, 2, 'seed 2 lacks word, pair, odd.'),
    (lambda r: r.task == 'odd', 3, 'seeds 0, 1, 2 lack odd.'),
    (lambda r: True, 0, 'seeds 0, 1, 2 lack word, pair, odd.'),
  ],
  ids=['a-task', 'a-seed', 'out-of-average', 'everything'],
)
def test_an_incomplete_variant_has_no_average(tmp_path, drop, seeds, sentence):
  multi = [run for run in _MULTI if not drop(run)]
  texts = _write(tmp_path, _SINGLE + multi)
  found = json.loads(texts['report.json'])['variants']
  assert found['multi']['average'] is None
  assert found['multi']['glue_average'] is None
  assert found['multi']['seeds'] == seeds
  assert found['single']['average'] == 70.0
  for text in (texts['report.md'], _Page(texts['report.html']).text):
    assert 'Multi is incomplete, so it has no average' in text
    assert sentence in text
    assert 'n = 3 seeds: each number is the median of those that' in text
    assert 'Highest average of the complete variants: Single, 70.0.' in text


def test_a_score_that_is_not_finite_is_null_and_has_no_average(tmp_path):
  runs = [*_SINGLE[3:], *_seed('single', 0, 62.0, math.nan, 80.0, 82.0)]
  texts = _write(tmp_path, runs, variants=('single',))
  assert 'NaN' not in texts['report.json']
  single = json.loads(texts['report.json'])['variants']['single']
  assert single['average'] is None
  assert single['tasks']['word'] == {'f1': 58.0, 'accuracy': None}


def _with_undefined(tmp_path, **fields):
  """Single's accuracy of `word` is undefined on seed 1, its F1 on seed 2."""
  why = {'dev': {'accuracy': 'all gold labels are equal'}}
  runs = [
    dataclasses.replace(run, undefined=why)
    if (run.seed, run.task) == (1, 'word')
    else run
    for run in (
      *_seed('single', 0, 62.0, 60.0, 80.0, 82.0),
      *_seed('single', 1, 58.0, math.nan, 90.0, 88.0),
      *_seed('single', 2, math.nan, 50.0, 80.0, 84.0),
      *_MULTI,
    )
  ]
  student = [dataclasses.replace(r, variant='single_to_multi') for r in _MULTI]
  variants = ('single', 'multi', 'single_to_multi')
  return _write(tmp_path, runs + student, variants=variants, **fields)


def test_what_is_made_of_an_undefined_score_is_undefined(tmp_path):
  found = json.loads(
    _with_undefined(tmp_path)['report.json'], parse_constant=pytest.fail
  )
  single = found['variants']['single']
  assert single['tasks']['word'] == {'f1': None, 'accuracy': None}
  assert single['average'] is None and single['glue_average'] is None
  # Of each seed: the paper's average has no F1 in it.
  averages = [
    (seed['average'], seed['glue_average'])
    for seed in found['per_seed']['single'].values()
  ]
  assert averages == [(70.0, 71.0), (None, None), (65.0, None)]
  assert found['statistics']['single']['word']['seeds'] == 3
  assert found['statistics']['single']['word']['median'] is None
  assert found['statistics']['single']['pair']['median'] == 80.0
  test = found['comparisons']['single_to_multi']['word']
  assert (test['p_value'], test['reason']) == (None, 'undefined score')
  assert test['shifts'] == {'single': None, 'multi': 0.0}
  tested = found['comparisons']['single_to_multi']['pair']
  assert tested['p_value'] is not None
  rows = {row['column']: row for row in found['pairs'][0]['rows']}
  assert rows['word']['medians'] == [64.0, None]
  assert rows['word']['reason'] == 'undefined score'
  assert rows['pair']['p_value'] is not None
  assert found['undefined'] == [
    {
      'variant': 'single', 'task': 'word', 'split': 'dev',
      'metric': 'accuracy', 'reason': 'all gold labels are equal', 'seeds': [1],
    },
    {
      'variant': 'single', 'task': 'word', 'split': 'dev',
      'metric': 'f1', 'reason': 'the reason is not recorded', 'seeds': [2],
    },
  ]  # fmt: skip


def test_undefined_scores_are_told_in_every_format(tmp_path):
  texts = _with_undefined(tmp_path)
  said = 'accuracy of word (dev), Single, seed 1: all gold labels are equal'
  page = _Page(texts['report.html'])
  latex = (tmp_path / 'report.tex').read_text()
  for text in (texts['report.md'], page.text, latex):
    assert said in text
    assert 'nan' not in text.lower()
  best = (
    'On average the student Single→Multi (72.0) is not comparable with its'
    ' teachers (Single; not tested: undefined score) and level with Multi'
    ' (72.0; p = 1.000, no difference shown); means of 3 seeds.'
  )
  assert best in page.text and best in texts['report.md']
  line = '| Single | undefined | 80.0 | 10.0 | undefined | undefined |'
  assert line in texts['report.md']
  assert 'Single & undefined & 80.0 &' in latex
  assert (
    'accuracy, medians: Single undefined, Multi 64.0' in (texts['report.html'])
  )
  assert (
    'points: word undefined (not tested), pair +0.0' in (texts['report.html'])
  )
  rows = list(csv.DictReader(texts['scores.csv'].splitlines()))
  assert [
    (row['seed'], row['metric'], row['undefined'])
    for row in rows
    if row['value'] == ''
  ] == [
    ('1', 'accuracy', 'all gold labels are equal'),
    ('2', 'f1', 'the reason is not recorded'),
  ]
  assert all(row['undefined'] == '' for row in rows if row['value'])


def test_a_variant_without_any_defined_score_is_shown(tmp_path):
  runs = [
    run
    for seed in range(3)
    for run in _seed('single', seed, *[math.nan] * 4, odd=math.nan)
  ]
  texts = _write(tmp_path, runs, variants=('single',))
  assert 'word, accuracy, medians: Single undefined' in texts['report.html']
  assert 'No variant has a defined average yet.' in texts['report.md']


def test_csv_loads_as_the_frame_of_scores(tmp_path):
  runs = [
    dataclasses.replace(run, undefined={'dev': {'f1': 'no positive, =1+1'}})
    for run in _seed('single', 0, math.nan, 0.1 + 0.2, 80.0, 82.0)
  ]
  _write(tmp_path, runs, variants=('single',), seeds=(0,))
  found = pd.read_csv(
    tmp_path / 'scores.csv', keep_default_na=False, na_values={'value': ['']}
  )
  pd.testing.assert_frame_equal(
    found, report.scores_frame(runs), check_exact=True, check_dtype=False
  )


def test_csv_has_a_row_a_score(texts):
  rows = list(csv.DictReader(texts['scores.csv'].splitlines()))
  # 2 variants x 3 seeds x (2 + 2 + 1) scores.
  assert len(rows) == 30
  assert rows[0] == {
    'variant': 'single',
    'seed': '0',
    'task': 'word',
    'split': 'dev',
    'metric': 'f1',
    'value': '62.0',
    'undefined': '',
  }
  assert {row['split'] for row in rows} == {'dev', 'dev_m', 'dev_mm'}


def test_page_parses_and_reaches_for_nothing(texts):
  text = texts['report.html']
  page = _Page(text)
  assert '70.0' in page.cells and '+2.0' in page.cells
  assert not re.search(
    r'(?i)https?:|//|@import|url\((?!#)|<script|javascript:', text
  )
  names = {name for _, name, _ in page.attributes}
  assert not names & {'src', 'href', 'onload', 'onclick'}
  links = [value for _, name, value in page.attributes if name == 'xlink:href']
  assert all(re.fullmatch('#\\w+', link) for link in links)
  assert ('meta', 'charset', 'utf-8') in page.attributes
  assert any("default-src 'none'" in str(a) for a in page.attributes)


def test_every_picture_has_an_alternative_text(texts):
  text = texts['report.html']
  pictures = re.findall(r'<svg[^>]*>', text)
  # Scores and gains; no curves.
  assert len(pictures) == 2
  assert all('role="img"' in p and 'aria-label="' in p for p in pictures)
  assert 'word, accuracy, medians: Single 60.0, Multi 64.0;' in text
  assert 'shift, points: word +4.0 (p=1.000), pair +0.0 (p=1.000)' in text


def test_text_is_escaped(tmp_path):
  evil = '<script>alert("x")</script> | & \n# head'
  texts = _write(tmp_path, _SINGLE, {evil: evil}, name=evil)
  page = _Page(texts['report.html'])
  assert '<script' not in texts['report.html']
  assert page.text.count('<script>alert("x")</script>') >= 3
  assert '<script' not in texts['report.md']
  first = texts['report.md'].splitlines()[0]
  assert first.startswith('# &lt;script&gt;') and r'\| &amp; # head' in first
  assert json.loads(texts['report.json'])['notes'] == {evil: evil}


def test_curves_are_medians_over_the_share_of_the_steps(tmp_path):
  def log(name, losses, gold_weight):
    path = tmp_path / name
    lines = [
      {
        'step': 10 * i, 'time': 0, 'loss': loss, 'loss/word': loss,
        'gold_weight': gold_weight(i / (len(losses) - 1)),
      }
      for i, loss in enumerate(losses)
    ]  # fmt: skip
    path.write_text(''.join(json.dumps(x) + '\n' for x in lines) + '{"torn')
    return path

  runs = []
  for seed, losses in enumerate(([9.0, 1.0], [6.0, 5.0, 3.0], [2.0, 2.0])):
    path = log(f'single{seed}', losses, lambda share: 1.0)
    runs += _seed('single', seed, 1.0, 1.0, 1.0, 1.0, curve=path)
    path = log(f'student{seed}', losses, lambda share: share)
    runs += _seed('single_to_multi', seed, 1.0, 1.0, 1.0, 1.0, curve=path)
  text = _write(
    tmp_path, runs, variants=('single', 'single_to_multi')
  )['report.html']  # fmt: skip
  # Medians at the first step of 9, 6, 2 and at the last of 1, 3, 2.
  assert (
    'word, mean loss per example over the share of the run&#x27;s steps:'
    ' Single from 6.00 to 2.00; Single→Multi from 6.00 to 2.00' in text
  )
  assert '3 runs of 10 to 20 steps' in _Page(text).text


def test_a_short_last_interval_of_a_curve_is_joined_with_the_one_before(
  tmp_path,
):
  path = tmp_path / 'metrics.jsonl'
  rows = ((9, 4.0), (19, 3.0), (29, 2.0), (31, 8.0))
  lines = [{'step': step, 'loss': loss} for step, loss in rows]
  lines.append({'step': 32, 'dev_score': 1.0})
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  found = curves.Curves([('single', 'word', path)]).medians('loss')['single']
  # Of ten steps and two.
  assert found[-1] == pytest.approx((10 * 2 + 2 * 8) / 12)
  assert np.nanmax(found) == pytest.approx(4, abs=0.1)


def test_equal_inputs_give_equal_bytes(tmp_path, monkeypatch):
  monkeypatch.setattr(figures, '_draw', figures._draw.__wrapped__)
  _write(tmp_path / 'a', _SINGLE + _MULTI)
  _write(tmp_path / 'b', (_SINGLE + _MULTI)[::-1])
  first, second = (_contents(tmp_path / name) for name in 'ab')
  assert first == second
  assert set(first) >= {'report.tex', 'report_scores.png', 'report_effects.png'}


def test_old_files_stay_when_a_new_one_cannot_be_written(tmp_path, monkeypatch):
  _write(tmp_path, _SINGLE)
  old = _contents(tmp_path)

  def fail(descriptor):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', fail)
  with pytest.raises(errors.UserError, match='No space left'):
    report.write(tmp_path, _config(), _TASKS, _SINGLE + _MULTI, {})
  assert _contents(tmp_path) == old


def test_nothing_is_replaced_when_one_file_cannot_be_rendered(tmp_path):
  _write(tmp_path, _SINGLE)
  old = _contents(tmp_path)
  damaged = tmp_path / 'metrics.jsonl'
  damaged.write_text('no json\n{"step": 1}\n')
  runs = _seed('multi', 0, 1.0, 1.0, 1.0, 1.0, curve=damaged)
  with pytest.raises(errors.UserError, match=r'metrics\.jsonl:1'):
    report.write(tmp_path, _config(), _TASKS, runs, {})
  assert _contents(tmp_path) == old


def _scored(variant, gain, seeds):
  """Scores that differ by seed, `gain` above those of the baselines."""
  return [
    run
    for seed in range(seeds)
    for run in _seed(variant, seed, *(50.0 + 0.1 * seed + gain,) * 4)
  ]


def _compared(tmp_path, seeds, gain=5.0):
  variants = ('single', 'multi', 'single_to_multi')
  runs = [
    run
    for variant in variants
    for run in _scored(variant, gain if variant == variants[-1] else 0.0, seeds)
  ]
  return _write(tmp_path, runs, variants=variants, seeds=tuple(range(seeds)))


def test_a_clear_gain_has_stars_where_it_is_one(tmp_path):
  """`odd` is the same in all variants; no split of 9 seeds is as extreme."""
  texts = _compared(tmp_path, seeds=9)
  found = json.loads(texts['report.json'])['comparisons']
  assert list(found) == ['single_to_multi']
  tests = found['single_to_multi']
  # 48,620 splits of 18 scores into nines; Holm multiplies by 4.
  assert tests['word']['p_value'] == pytest.approx(1 / 48620)
  assert tests['word']['corrected'] == pytest.approx(4 / 48620)
  assert tests['word']['stars'] == tests['average']['stars'] == '***'
  assert tests['odd']['stars'] == ''
  assert tests['odd']['reason'] == 'not significant'
  assert tests['word']['shifts']['multi'] == pytest.approx(5.0)
  assert r'**55.4\*\*\***' in texts['report.md']
  page = _Page(texts['report.html'])
  assert '55.4***' in page.cells
  assert '<b>55.4</b><sup>***</sup></td>' in texts['report.html']
  assert '*** p < .001' in page.text


def test_an_average_that_is_absent_has_no_stars(tmp_path):
  """Of eight seeds one lacks a task; the others are tested all the same."""
  variants = ('single', 'multi', 'single_to_multi')
  runs = [
    run
    for variant in variants
    for run in _scored(variant, 5.0 if variant == variants[-1] else 0.0, 8)
    if (run.seed, run.task) != (7, 'word') or variant != variants[-1]
  ]
  texts = _write(tmp_path, runs, variants=variants, seeds=tuple(range(8)))
  tests = json.loads(texts['report.json'])['comparisons']['single_to_multi']
  assert tests['average']['stars'] == '***'
  assert r'—\*' not in texts['report.md']
  assert '—*' not in _Page(texts['report.html']).cells


def test_too_few_seeds_have_no_star_and_say_how_many_it_takes(tmp_path):
  texts = _compared(tmp_path, seeds=3)
  tests = json.loads(texts['report.json'])['comparisons']['single_to_multi']
  assert {test['reason'] for test in tests.values()} == {'not enough seeds'}
  sentence = 'Not enough seeds for a star: 4 tests at once need 5 seeds.'
  assert sentence in _Page(texts['report.html']).text


def test_a_variant_over_part_of_the_tasks_is_complete_without_an_average(
  tmp_path,
):
  texts = _write(tmp_path, _SINGLE + _SOME, **_WITH_SOME)
  some = json.loads(texts['report.json'])['variants']['some']
  assert some['missing'] == {}
  assert some['average'] is None
  assert some['tasks'] == {'word': {'f1': 1.0, 'accuracy': 2.0}}


def test_shares_drawn_stand_beside_those_intended(tmp_path):
  """Of 400 examples of a run 100, 200 and 100; of another one 200, 100, 100."""
  runs = []
  for seed, counts in enumerate(
    ([[40, 160, 0], [60, 40, 100]], [[200, 100, 100]])
  ):
    path = tmp_path / f'{seed}.jsonl'
    keys = [f'examples/{name}' for name in _TASKS.names]
    lines = [{'step': i, **dict(zip(keys, c))} for i, c in enumerate(counts)]
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    runs += [
      dataclasses.replace(run, share=share)
      for run, share in zip(
        _seed('multi', seed, 1.0, 1.0, 1.0, 1.0, curve=path), (0.3, 0.4, 0.3)
      )
    ]
  texts = _write(tmp_path, _SINGLE + runs)
  shares = json.loads(texts['report.json'])['shares']
  assert list(shares) == ['multi']
  assert shares['multi']['word'] == {'intended': 0.3, 'drawn': 0.375}
  assert shares['multi']['pair'] == {'intended': 0.4, 'drawn': 0.375}
  assert (
    'word 37.5% (intended 30.0%), pair 37.5% (intended 40.0%)'
    in texts['report.html']
  )


def test_without_shares_there_is_no_picture_of_them(texts):
  assert json.loads(texts['report.json'])['shares'] == {}
  assert 'Shares of the tasks' not in texts['report.html']


def test_teachers_are_told_in_percent(tmp_path):
  quality = {'train': {'accuracy': 0.5, 'confidence': 0.75, 'entropy': 0.333}}
  runs = [dataclasses.replace(run, quality=quality) for run in _SINGLE]
  texts = _write(tmp_path, runs, variants=('single',))
  found = json.loads(texts['report.json'])['teachers']['word']
  assert found == {'quality': quality, 'agreement': None}
  line = '| word | train | 50.0 | 75.0 | — | 0.33 | — | — |'
  assert line in texts['report.md'].splitlines()
  assert 'calibration of Single' in _Page(texts['report.html']).text


def test_of_external_teachers_no_model_of_the_plan_is_told(tmp_path):
  quality = {'train': {'accuracy': 0.5}}
  runs = [dataclasses.replace(run, quality=quality) for run in _SINGLE]
  values = {'variants': ('single', 'single_to_multi')}
  texts = _write(
    tmp_path, runs, **values, distill=config_lib.DistillConfig(logits='there')
  )
  assert json.loads(texts['report.json'])['teachers'] == {}
  assert 'calibration of Single' not in _Page(texts['report.html']).text


def test_own_variants_look_different_and_keep_their_looks():
  own = [f'own_{i}' for i in range(12)]
  looks = figures.looks(['single', *own, 'single_to_multi'])
  assert len(set(looks.values())) == 14
  assert looks['single'] == figures.looks(['single'])['single']


def test_pictures_leave_out_variants_without_a_score(tmp_path):
  text = _write(tmp_path, _SINGLE + _SOME, **_WITH_SOME)['report.html']
  assert '; word, accuracy, medians: Single 60.0, some 2.0;' in text
  assert '; pair, accuracy, medians: Single 80.0;' in text


def test_bounds_of_run_lengths_are_said(tmp_path):
  runs = [run for n in ('single', 'multi') for run in _seed(n, 0, *[60.0] * 4)]
  single = config_lib.RunLengthConfig(max_steps=20)
  multi = config_lib.RunLengthConfig(epochs=1.0, min_steps=90, min_passes=2.0)
  told = _write(tmp_path, runs, seeds=(0,), single=single, multi=multi)
  assert (
    'Single takes 3 epochs, at most 20 steps, at rate 5e-05, Multi 1 epoch, at'
    ' least 90 steps, at least 2 passes over each task, at rate 5e-05, so their'
  ) in told['report.md']


@pytest.mark.parametrize(
  ('fields', 'is_said'),
  [
    ({}, True),
    ({'multi': config_lib.RunLengthConfig(batch_size=128)}, False),
    ({'variants': ('single', 'single_to_single')}, False),
    ({'variants': ('single', 'multi', 'single_searched')}, True),
    # The settings of Single itself are those of a search.
    ({'search': fields_lib.SearchConfig(epochs=(1.0,), seeds=(9,))}, False),
  ],
)
def test_settings_that_differ_beside_the_variant_are_said(
  tmp_path, fields, is_said
):
  variants = fields.get('variants', ('single', 'multi'))
  runs = [run for name in variants for run in _seed(name, 0, *[60.0] * 4)]
  told = _write(tmp_path, runs, seeds=(0,), **fields)['report.md']
  text = 'Single takes 3 epochs at rate 5e-05, Multi 6 epochs'
  assert (text in told) == is_said
