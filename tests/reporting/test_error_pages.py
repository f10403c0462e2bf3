"""The section of report.html about errors, in an HTML reader."""

import html
import html.parser
import re

import pytest

from bam_jax import config as config_lib
from bam_jax import fields as fields_lib
from bam_jax.reporting import error_pages
from bam_jax.reporting import error_rows
from bam_jax.reporting import report
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib
from tests.reporting import plans

_HOSTILE = '<script>alert("x")</script>\x1b</td> secret'
_MANY = tuple(f'class {i}' for i in range(11))


def _task(name, kind, **fields):
  return plans.make_task(
    name,
    kind=kinds.KINDS[kind],
    metrics=kinds.KINDS[kind].default_metrics,
    paper_metric=kinds.KINDS[kind].default_metrics[0],
    **fields,
  )


_TASKS = task_lib.TaskTable(
  (
    _task('few', 'classification', labels=('<b>', 'good')),
    _task('many', 'classification', labels=_MANY),
    _task('moods', 'multilabel', labels=('joy', 'fear')),
    _task('stars', 'regression', labels=()),
    _task('names', 'tagging', labels=('O', 'B-PER')),
    _task('answers', 'qa', labels=()),
    _task('lost', 'classification'),
  )
)
# Task -> gold and predicted labels of its rows, and the text.
_DEV = {
  'few': ([0, 1, 1], [(1, 0.75), (1, 0.9), (0, 0.5)], _HOSTILE),
  'many': ([3, 3, 3, 4], [(5, 0.5), (5, 0.5), (3, 1.0), (3, 1.0)], 'a' * 900),
  'moods': ([(0,), ()], [((), 0.6), ((1,), 0.7)], 'mood text'),
  'stars': ([0.25], [(1.0, None)], 'star text'),
  'names': ([(0, 1, 0)], [((0, 0, 0), 0.8)], 'see Bo there'),
  'answers': ([(('Oslo', 0),)], [((('secret town', 3),), 0.4)], 'which?'),
}


def _analysis() -> error_rows.Analysis:
  found = {}
  for name, (gold, predicted, text) in _DEV.items():
    task = _TASKS[name]
    decided = [
      kind_lib.Decided(label, () if sure is None else (sure,) * 3)
      for label, sure in predicted
    ]
    texts = [{'text': text}] * len(gold)
    rows = error_rows.Rows('dev', range(len(gold)), gold, texts)
    teacher = list(map(kind_lib.Decided, gold))
    lists, counts = {}, {}
    for reason in (error_rows.WRONG, error_rows.DISAGREEMENT):
      lists[reason], count = error_rows.find(
        task, rows, reason, decided, teacher
      )
      counts[reason] = count, len(gold)
    pairs = error_rows.confusions(task, gold, decided)
    missing = {error_rows.LABEL: 'no folds, it <seems>'}
    found[name] = error_rows.TaskErrors(lists, counts, pairs, missing)
  missing = {'lost': 'its file cannot be read'}
  return error_rows.Analysis('multi', 3, 'single', found, missing)


def _write(tmp_path, place):
  config = config_lib.Config(
    tasks=_TASKS.names,
    variants=('multi',),
    plan=fields_lib.PlanConfig(report_texts=place),
  )
  runs = [
    plans.make_run(
      'multi', 3, task.name, {'dev': dict.fromkeys(task.metrics, 1.0)}
    )
    for task in _TASKS.tasks
  ]
  report.write(tmp_path, config, _TASKS, runs, {}, errors=_analysis())
  page = (tmp_path / 'report.html').read_text()
  section = page[page.index('<h2>Errors') :]
  return section[: section.index('</section>')], tmp_path


class _Cells(html.parser.HTMLParser):
  """The rows of all tables, and names of all elements."""

  def __init__(self, text):
    super().__init__()
    self.rows, self.names, self._in_cell = [], set(), False
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.names.add(tag)
    if tag == 'tr':
      self.rows.append([])
    if tag in ('td', 'th'):
      self.rows[-1].append('')
      self._in_cell = True

  def handle_endtag(self, tag):
    if tag in ('td', 'th'):
      self._in_cell = False

  def handle_data(self, data):
    if self._in_cell:
      self.rows[-1][-1] += data


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  return _Cells(_write(tmp_path_factory.mktemp('page'), 'page')[0])


def test_texts_and_labels_are_escaped(page):
  assert 'script' not in page.names
  assert ['dev/0', '<b>', 'good', '<b>', '75.0'] in [
    row[:5] for row in page.rows
  ]
  shown = [row[5] for row in page.rows if row[:2] == ['dev/0', '<b>']]
  assert shown == [_HOSTILE.replace('\x1b', '\\x1b')] * 2


def test_few_classes_have_a_matrix_and_many_the_pairs(page):
  header = page.rows.index(['gold \\ predicted', '<b>', 'good'])
  assert page.rows[header + 1 : header + 3] == [
    ['<b>', '0', '1'], ['good', '1', '1']
  ]  # fmt: skip
  assert ['class 3', 'class 5', '2', '66.7'] in page.rows
  assert ['class 4', 'class 3', '1', '100.0'] in page.rows
  assert ['joy', '—', '1', '100.0'] in page.rows
  assert ['—', 'fear', '1', '—'] in page.rows


def test_long_texts_are_cut_and_tags_are_those_that_differ(page):
  rows = {row[0]: row for row in page.rows if 'a' * 100 in row[-1]}
  assert rows['dev/0'][-1] == 'a' * 400 + '…'
  assert ['dev/0', 'Bo: B-PER', 'Bo: O', 'Bo: B-PER'] in [
    row[:4] for row in page.rows
  ]
  assert ['dev/0', '0.25', '1.00', '0.25', '0.75', 'star text'] in page.rows


@pytest.mark.parametrize('place', ['file', 'none'])
def test_texts_stay_out_of_the_page(tmp_path, place):
  section, folder = _write(tmp_path, place)
  written = (folder / 'errors.jsonl').read_text()
  for text in ('secret', 'mood text', 'see Bo', 'which?', 'Oslo', 'aaa'):
    assert text not in section
    assert (text in written) == (place == 'file')
  assert ['dev/0', '1: B-PER', '1: O', '1: B-PER', '80.0'] in _Cells(
    section
  ).rows
  assert ['dev/0', 'an answer', 'an answer'] in [
    row[:3] for row in _Cells(section).rows
  ]


def test_what_is_missing_is_said(tmp_path):
  section, _ = _write(tmp_path, 'page')
  text = html.unescape(re.sub('<[^>]*>', '', section))
  assert 'Not analysed: lost (its file cannot be read).' in text
  assert text.count('Not shown: no folds, it <seems>.') == len(_DEV)
  assert 'Multi with seed 3' in text
  assert 'few: 2 of 3 dev rows are wrong' in text


def test_without_any_analysis_there_is_one_sentence():
  analysis = error_rows.Analysis('multi', 0, '', {}, {'lost': 'no rows'})
  section = error_pages.section(analysis, _TASKS, 'file')
  assert section == ('Not analysed: lost (no rows).', {})
