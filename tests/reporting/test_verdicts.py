"""What serves each task best, against textbook tests and arithmetic by hand."""

import dataclasses
import html
import itertools
import json
from pathlib import Path
import re

import numpy as np
import pytest
import scipy.stats

from bam_jax import config as config_lib
from bam_jax.reporting import bootstrap
from bam_jax.reporting import report
from bam_jax.reporting import statistics
from bam_jax.reporting import verdicts
from bam_jax.reporting import words
from bam_jax.tasks import glue
from bam_jax.tasks import task as task_lib
from benchmarks import false_positives
from tests.reporting import plans

_N = 400
_JSON = Path(false_positives.__file__).with_suffix('.json')


def _rng(seed=0):
  return np.random.default_rng(seed)


def _drawn(*groups):
  """Mean scores on all examples and on resamples, [1 + B, S] of each group."""
  score = false_positives.mean_score
  return bootstrap.drawn_scores(groups, score, _rng(), 4999)


def test_error_over_seeds_and_examples_is_that_of_the_analysis_of_variance():
  """Mean squares of two crossed random factors (Searle 1971, chapter 9)."""
  seeds = 4
  seed = 0.03 * _rng(1).normal(size=(seeds, 1))
  example = 0.2 * _rng(2).normal(size=_N)
  student = seed + example + 0.5 * _rng(3).normal(size=(seeds, _N))
  found = bootstrap.difference(*_drawn(student, np.zeros((2, _N))), _N)
  grand = student.mean()
  rows, columns = student.mean(axis=1), student.mean(axis=0)
  residual = student - rows[:, None] - columns + grand
  of_seeds = _N * np.sum((rows - grand) ** 2) / (seeds - 1)
  of_examples = seeds * np.sum((columns - grand) ** 2) / (_N - 1)
  left = np.sum(residual**2) / ((seeds - 1) * (_N - 1))
  error = np.sqrt((of_seeds + of_examples - left) / (seeds * _N))
  assert found.mean == pytest.approx(grand)
  assert found.error == pytest.approx(error, rel=0.03)
  # Each part matters.
  for part in (of_seeds, of_examples, of_seeds + of_examples):
    assert abs(error / np.sqrt(part / (seeds * _N)) - 1) > 0.06


def test_one_seed_is_the_paired_t_test_over_examples():
  student = (_rng(1).random((1, _N)) < 0.8).astype(float)
  baseline = np.where(_rng(2).random((1, _N)) < 0.8, student, 1 - student)
  expected = scipy.stats.ttest_rel(student[0], baseline[0])
  found = bootstrap.difference(*_drawn(student, baseline), _N)
  assert found.p_value('two-sided') == pytest.approx(expected.pvalue, rel=0.15)
  low, high = expected.confidence_interval()
  assert found.half_width == pytest.approx((high - low) / 2, rel=0.03)


def test_without_examples_it_is_welchs_test():
  student, baseline = _rng(1).normal(81, 3, 7), _rng(2).normal(80, 1, 5)
  found = bootstrap.difference(student[None], baseline[None], 0)
  for side in ('two-sided', 'greater'):
    expected = scipy.stats.ttest_ind(
      student, baseline, equal_var=False, alternative=side
    )
    assert found.p_value(side) == pytest.approx(expected.pvalue)
  low, high = scipy.stats.ttest_ind(
    student, baseline, equal_var=False
  ).confidence_interval()
  assert found.half_width == pytest.approx((high - low) / 2)


def test_few_examples_never_give_a_small_p_value():
  """Of 32 ways to swap five predictions two are as extreme."""
  groups = _drawn(np.ones((3, 5)), np.zeros((3, 5)))
  found = bootstrap.difference(*groups, 5)
  assert found.p_value('two-sided') == 2 / 32
  assert found.p_value('greater') == 1 / 32


def test_equal_predictions_are_no_difference():
  groups = _drawn(np.ones((3, 5)), np.ones((3, 5)))
  assert bootstrap.difference(*groups, 5).p_value('two-sided') == 1.0
  one = np.ones((1, 1))
  assert bootstrap.difference(one, one, 0) is None


_TASKS = task_lib.TaskTable(
  tuple(map(plans.make_task, ('more', 'less', 'same')))
)
# Share of right predictions by task; gold labels are 1.
_RIGHT = {
  'single': (0.5, 0.8, 0.7),
  'multi': (0.5, 0.6, 0.7),
  'single_to_multi': (0.8, 0.5, 0.7),
}


def _runs(folder, right, seeds, has_outputs=True, apart=()):
  """Examples differ in how hard they are; for those `apart` in another way."""
  runs = []
  for variant, seed in itertools.product(right, range(seeds)):
    path = folder / 'runs' / f'{variant}-s{seed}' / 'outputs.npz'
    path.parent.mkdir(parents=True)
    arrays = {}
    for place, (task, share) in enumerate(zip(_TASKS.names, right[variant])):
      hard = _rng([place, (variant, task) in apart]).permutation(_N) / _N
      noise = _rng([place, seed, len(variant)]).normal(size=_N)
      predicted = (hard + 0.02 * noise < share).astype(int)
      key = f'{task}/dev'
      arrays[f'{key}/uid'] = np.array([f'{key}/{i}' for i in range(_N)])
      arrays[f'{key}/logits'] = np.eye(2)[predicted]
      arrays[f'{key}/label'] = np.ones(_N, int)
      runs.append(
        plans.make_run(
          variant,
          seed,
          task,
          {'dev': {'accuracy': 100 * predicted.mean()}},
          outputs=path,
        )
      )
    if has_outputs:
      np.savez(path, **arrays)
  return runs


def _config(right, seeds, **fields):
  return config_lib.Config(
    tasks=_TASKS.names,
    variants=tuple(right),
    seeds=tuple(range(seeds)),
    **fields,
  )


def _summary(folder, right=None, seeds=4, has_outputs=True, **fields):
  right = right or _RIGHT
  runs = _runs(folder, right, seeds, has_outputs)
  return _summarise(_config(right, seeds, **fields), runs)


def _summarise(config, runs):
  summary = report.summarise(config, _TASKS, runs)
  return summary | {'baselines': {}, 'weak': {}}


@pytest.fixture(name='summary', scope='module')
def _four_seeds(tmp_path_factory):
  return _summary(tmp_path_factory.mktemp('four'))


def test_each_task_has_its_verdict(tmp_path, summary):
  for found in (summary, _summary(tmp_path, seeds=1)):
    cells = found['verdicts']['tasks']
    assert {task: cell['verdict'] for task, cell in cells.items()} == {
      'more': 'student', 'less': 'own', 'same': 'no difference',
    }  # fmt: skip
    assert {cell['examples'] for cell in cells.values()} == {_N}
    assert cells['more']['difference'] == pytest.approx(30, abs=2)
    # Over examples alone: 30% of them are right for the student only.
    assert cells['more']['half_width'] == pytest.approx(
      100 * 1.966 * np.sqrt(0.3 * 0.7 / _N), rel=0.15
    )
    corrected = [cell['corrected'] for cell in cells.values()]
    assert corrected == statistics.holm([c['p_value'] for c in cells.values()])
    sentences = words.headline(found)
    assert sentences[1] == (
      'Serve the student for more; serve its own model for less; no difference'
      ' shown for same. Where none is shown, the student is the simpler choice,'
      ' one model for all tasks; it may still be worse there, within the'
      ' interval of the difference.'
    )
    over = {cell['over'] for cell in cells.values()}
    if found is summary:
      assert over == {'seeds and dev examples'} and len(sentences) == 2
    else:
      assert over == {'dev examples'}
      assert sentences[2].startswith('With one seed the tests are over dev')


def test_the_first_screen_is_sentences_then_verdicts_then_scores(tmp_path):
  runs = _runs(tmp_path, _RIGHT, seeds=1)
  weak = {'less': ['single'], 'more': ['single'], 'same': ['single']}
  sentences = report.write(
    tmp_path, _config(_RIGHT, 1), _TASKS, runs, {}, weak=weak
  )
  for name in ('report.html', 'report.md'):
    text = html.unescape((tmp_path / name).read_text())
    shown = [*sentences, 'recommendation', 'serve its own model', 'variant']
    places = [text.rindex(sentences[0])]
    for words_shown in shown[1:]:
      places.append(text.index(words_shown, places[-1]))
    assert len(places) == 7
  # Marked, and said, where the best model is no better than the majority.
  rows = re.findall('^[|] (more|less|same) +[|] (.*?) +[|]', text, re.M)
  assert rows[:3] == [
    ('more', 'serve the student'),
    ('less', 'serve its own model†'),
    ('same', 'no difference shown'),
  ]


def test_the_first_sentence_is_of_the_average(summary):
  assert list(summary['verdicts']['averages']) == ['single', 'multi']
  student, single, multi = (
    round(summary['statistics'][name]['average']['mean'], 1)
    for name in ('single_to_multi', 'single', 'multi')
  )
  assert re.fullmatch(
    rf'On average the student Single→Multi \({student:.1f}\) is'
    rf' level with its teachers \(Single, {single:.1f};'
    rf' p = [01.]\d+, no difference shown\) and {student - multi:.1f} above'
    rf' Multi \({multi:.1f}; p < \.001\); means of 4 seeds\.',
    words.headline(summary)[0],
  )


def test_a_variant_may_be_called_student(summary):
  found = summary['verdicts'] | {'student': 'student'}
  scores = summary['statistics']
  scores = scores | {'student': scores['single_to_multi']}
  sentence = words.headline(
    summary | {'verdicts': found, 'statistics': scores}
  )[0]
  assert sentence.startswith('On average the student (')


def test_the_first_sentence_names_no_means_of_one_seed(tmp_path):
  sentence = words.headline(_summary(tmp_path, seeds=1))[0]
  assert re.search(r'above Multi \(\d\d\.\d; p < \.001\)\.$', sentence)


@pytest.mark.parametrize('fields', [{'folds': 3}, {'teachers': 2}], ids=str)
def test_runs_that_did_not_teach_are_not_called_teachers(tmp_path, fields):
  """The scores are those of models on all rows, one seed each."""
  distill = config_lib.DistillConfig(**fields)
  sentence = words.headline(_summary(tmp_path, distill=distill))[0]
  assert re.search(r" Single \(its teachers' settings, \d\d\.\d; p ", sentence)


def test_differences_of_the_first_sentence_are_of_its_numbers(summary):
  """74.46 and 72.24 are shown as 74.5 and 72.2, and differ by 2.22."""
  means = {'single_to_multi': 74.46, 'single': 72.24, 'multi': 74.54}
  changed = {
    name: {'average': {'mean': mean, 'seeds': 4}}
    for name, mean in means.items()
  }
  sentence = words.headline(summary | {'statistics': changed})[0]
  assert '(74.5) is 2.3 above its teachers (Single, 72.2; ' in sentence
  assert ' and level with Multi (74.5; ' in sentence


def test_a_student_that_lost_is_said_to_have_lost(tmp_path):
  lost = _RIGHT | {'single_to_multi': (0.4, 0.4, 0.4)}
  sentences = words.headline(_summary(tmp_path, lost, seeds=2))
  assert re.search(
    r'below its teachers \(Single, 6\d\.\d; p < \.001\)', sentences[0]
  )
  assert sentences[1] == 'Serve its own model for every task.'


def test_without_outputs_the_test_is_over_seeds(tmp_path):
  """As in a work directory of which only the records are left."""
  found = _summary(tmp_path, has_outputs=False)
  cell = found['verdicts']['tasks']['more']
  assert (cell['verdict'], cell['over']) == ('student', 'seeds')
  assert cell['reason'] == 'runs/single_to_multi-s0/outputs.npz is missing'
  text = words.about_verdicts(found['verdicts'])
  assert f'Not tested, or not over examples: {cell["reason"]}.' in text
  sentences = words.headline(found)
  assert 'the student for more' in sentences[1]
  assert sentences[2].startswith('Without dev outputs the tests are over seeds')


def test_one_seed_without_outputs_is_no_test(tmp_path):
  found = _summary(tmp_path, seeds=1, has_outputs=False)
  assert words.headline(found)[1] == 'Not tested for any task.'


def test_corrections_are_those_that_the_report_lists(tmp_path):
  """Every corrected p-value of report.json is in one of the counted groups."""
  own = {'slow': config_lib.VariantConfig(like='multi')}
  right = _RIGHT | {'slow': _RIGHT['multi']}
  found = _summary(tmp_path, right, custom_variants=own)
  config = _config(right, 4, custom_variants=own)
  (text,) = (
    re.fullmatch(r"p-values .* together, by Holm's method, in: (.*)\.", said)[1]
    for said in words.remarks(found, config, _TASKS)
    if said.startswith('p-values')
  )
  counts = [int(n) for n in re.findall(r'\((\d+)\)', text)]
  # Averages: single, multi. Two variants are tested on three tasks and average.
  assert counts == [2, 3, 8, 4, 4, 1]

  groups = [
    list(found['verdicts']['averages'].values()),
    list(found['verdicts']['tasks'].values()),
    *(
      [cell for cells in found[name].values() for cell in cells.values()]
      for name in ('comparisons', 'over_examples', 'bootstrap')
    ),
    *(table['rows'] for table in found['pairs']),
  ]
  for group in groups:
    assert [cell['corrected'] for cell in group] == pytest.approx(
      statistics.holm([cell['p_value'] for cell in group])
    )
  assert [len(group) for group in groups] == [2, 3, 8, 8, 8, 4, 4, 1]

  def corrected(value):
    if isinstance(value, list):
      return sum(map(corrected, value))
    if isinstance(value, dict):
      here = value.get('corrected') is not None
      return here + sum(map(corrected, value.values()))
    return 0

  assert corrected(found) == sum(map(len, groups))


def test_stars_say_whether_other_examples_agree(tmp_path):
  right = _RIGHT | {'single_to_multi': (0.9, 0.82, 0.7)}
  runs = _runs(tmp_path, right, 9, apart={('single_to_multi', 'less')})
  found = _summarise(_config(right, 9), runs)
  stars, agree = (
    [bool(is_clear(t)) for t in found[key]['single_to_multi'].values()]
    for key, is_clear in (
      ('comparisons', lambda test: test['stars']),
      ('over_examples', lambda test: test['corrected'] < 0.05),
    )
  )
  # Two points, by a third of the examples for one or the other.
  assert stars == [True, True, False, True]
  assert agree == [True, False, False, True]
  said = words.remarks(found, _config(right, 9), _TASKS)
  assert any(
    'For 2 of 3 stars the difference holds over' in text for text in said
  )


def test_averages_are_named_by_what_differs():
  own = dataclasses.replace(glue.TASKS['sst2'], name='mood')
  more = dataclasses.replace(own, metrics=('accuracy', 'macro_f1'))
  for tasks, names in (
    ([own], ('over tasks',)),
    ([more], ('one metric', 'all metrics')),
    ([own, glue.TASKS['rte']], ('paper', 'GLUE')),
  ):
    assert words.averages(task_lib.TaskTable(tuple(tasks))) == names


def test_own_models_and_students_are_found_by_name():
  own = {
    'a_slow': config_lib.VariantConfig(like='single'),
    'tuned': config_lib.VariantConfig(like='single', start='multi'),
    'taught': config_lib.VariantConfig(like='single', teacher='multi'),
    'some': config_lib.VariantConfig(like='single_to_multi', tasks=('more',)),
    'again': config_lib.VariantConfig(like='single_to_multi'),
  }
  config = config_lib.Config(tasks=_TASKS.names, custom_variants=own)
  names = ['single', 'multi', 'single_to_single', 'a_slow', 'tuned', 'some']
  assert verdicts.find_own(config, names) == 'single'
  searched = [*names, 'single_searched']
  assert verdicts.find_own(config, searched) == 'single_searched'
  assert verdicts.find_own(config, names[1:]) == 'a_slow'
  assert verdicts.find_own(config, ['multi', 'tuned', 'taught']) is None
  assert verdicts.find_student(config, names) == 'multi'
  assert verdicts.find_student(config, [*names, 'again']) == 'again'
  taught = ['multi_to_multi', 'again', 'single_to_multi']
  assert verdicts.find_student(config, taught) == 'single_to_multi'
  assert verdicts.find_student(config, ['single', 'some']) is None


def test_error_rates_of_the_bootstrap_are_those_simulated():
  """For each number of seeds, of both readings of the paper's bootstrap."""
  worlds = json.loads(_JSON.read_text())['false_positives'].values()
  parts = []
  for reading in ('bootstrap, medians', 'bootstrap, medians, percentile'):
    rates = []
    for seeds in ('5', '10', '20'):
      found = [100 * world[reading][seeds]['rate'] for world in worlds]
      rates.append(f'{min(found):.1f} to {max(found):.1f}% (n = {seeds})')
    parts.append(', '.join(rates))
  assert parts == [bootstrap.ERROR_RATES, bootstrap.INTERVAL_RATES]


def test_a_baseline_wins_by_more_than_the_half_width():
  def cell(verdict, half_width):
    return {'verdict': verdict, 'half_width': half_width}

  found = {
    'tasks': {
      'far': cell('student', 2.0),
      'near': cell('own', 2.0),
      'level': cell('no difference', 0.0),
      'alone': cell('not tested', None),
    }
  }
  lead = {'average': 9.0, 'far': 2.1, 'near': 1.9, 'level': 0.0, 'alone': 0.1}
  verdicts.prefer_baselines(found, {'frozen_encoder': {'lead': lead}})
  assert {task: each['verdict'] for task, each in found['tasks'].items()} == {
    'far': 'baseline', 'near': 'own', 'level': 'no difference',
    'alone': 'baseline',
  }  # fmt: skip
  assert words.verdict({'is_taught': True, 'student': 'x'}, 'baseline') == (
    'a baseline scores higher than every variant'
  )
