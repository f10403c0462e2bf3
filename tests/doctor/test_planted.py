"""Faults planted in good files: each is found, where it is, and nothing else.

Lines are those of the file, the header counted.
"""

from collections.abc import Callable
import dataclasses
import gzip
import json
import shutil

import numpy as np
import pytest

from bam_jax.data import tfds_source
from bam_jax.data import tsv
from bam_jax.doctor import contents
from bam_jax.doctor import findings
from bam_jax.doctor import rows as rows_lib
from bam_jax.tasks import glue

_Fault = Callable[..., None]
# What each fault must be found as: severity, split, check, places.
_Expected = tuple[str, str, str, tuple[str, ...]]
_FAULTS: dict[str, tuple[_Fault, list[_Expected]]] = {}


def _fault(*expected: str) -> Callable[[_Fault], _Fault]:
  """Registers a fault.

  Args:
    *expected: `SEVERITY SPLIT CHECK: PLACE, PLACE`; _ is a blank in a check.
  """

  def register(plant: _Fault) -> _Fault:
    found = []
    for text in expected:
      kind, _, places = text.partition(': ')
      severity, split, check = kind.split()
      found.append((
        severity,
        split,
        check.replace('_', ' '),
        tuple(places.split(', ')) if places else (),
      ))  # fmt: skip
    _FAULTS[plant.__name__.removeprefix('_')] = plant, found
    return plant

  return register


def _summary(report: findings.Report) -> set[_Expected]:
  """All but that the files are small, which those without a fault are too."""
  return {
    (f.severity, f'{f.task}/{f.split}', f.check, f.places)
    for f in report.findings
    if (f.severity, f.check) != ('note', 'size')
  }


@_fault('error rte/dev missing: RTE/dev.tsv')
def _no_dev_file(folder):
  (folder.root / 'RTE/dev.tsv').unlink()


@_fault('note rte/test missing: RTE/test.tsv')
def _no_test_file(folder):
  (folder.root / 'RTE/test.tsv').unlink()


@_fault('error rte/dev missing: RTE/dev.tsv')
def _a_folder_in_place_of_a_file(folder):
  (folder.root / 'RTE/dev.tsv').unlink()
  (folder.root / 'RTE/dev.tsv').mkdir()


@_fault('error wnli/train empty_file: WNLI/train.tsv')
def _header_alone(folder):
  folder.write('WNLI/train.tsv', folder.lines('WNLI/train.tsv')[:1])


@_fault('error stsb/dev unreadable: STS-B/dev.tsv:1')
def _too_few_columns(folder):
  lines = [line.split('\t')[:5] for line in folder.lines('STS-B/dev.tsv')]
  folder.write('STS-B/dev.tsv', ['\t'.join(line) for line in lines])


@_fault('error stsb/dev swapped: STS-B/dev.tsv:1')
def _the_test_file_in_the_place_of_dev(folder):
  folder.write('STS-B/dev.tsv', folder.lines('STS-B/test.tsv'))


@_fault('error sst2/dev unreadable: SST-2/dev.tsv:5')
def _a_line_without_end(folder):
  folder.set_fields('SST-2/dev.tsv', 5, {0: 'long ' * 300_000})


@_fault('error sst2/dev encoding: SST-2/dev.tsv:1')
def _utf_16(folder):
  text = (folder.root / 'SST-2/dev.tsv').read_text()
  (folder.root / 'SST-2/dev.tsv').write_text(text, encoding='utf-16')


@_fault('error sst2/dev unreadable: SST-2/dev.tsv')
def _damaged_gzip(folder):
  content = (folder.root / 'SST-2/dev.tsv').read_bytes()
  (folder.root / 'SST-2/dev.tsv').write_bytes(gzip.compress(content)[:-9])


@_fault('error rte/train encoding: RTE/train.tsv:1')
def _a_page_of_html(folder):
  folder.write('RTE/train.tsv', ['<!DOCTYPE html>', '<title>Sign in</title>'])


@_fault('error sst2/dev encoding: SST-2/dev.tsv:4, SST-2/dev.tsv:9')
def _latin_1(folder):
  lines = (folder.root / 'SST-2/dev.tsv').read_bytes().split(b'\n')
  lines[3] = b'caf\xe9 ' + lines[3]
  lines[8] = b'na\xefve ' + lines[8]
  (folder.root / 'SST-2/dev.tsv').write_bytes(b'\n'.join(lines))


@_fault('warning mrpc/train bom: MRPC/train.tsv:7')
def _a_mark_inside(folder):
  folder.surround('MRPC/train.tsv', 7, 3, '\ufeff')


@_fault()
def _a_mark_at_the_start(folder):
  lines = folder.lines('MRPC/train.tsv')
  folder.write('MRPC/train.tsv', [f'\ufeff{lines[0]}', *lines[1:]])


@_fault('warning mrpc/train controls: MRPC/train.tsv:8')
def _cp1252_read_as_latin_1(folder):
  quoted = '\u201cyes\u201d \u2013 5 \u20ac'.encode('cp1252').decode('latin1')
  folder.surround('MRPC/train.tsv', 8, 3, quoted)


@_fault('warning mrpc/train characters: MRPC/train.tsv:8, MRPC/train.tsv:9')
def _lost_characters(folder):
  for line, lost in ((8, '\ufffd'), (9, '\0')):
    folder.surround('MRPC/train.tsv', line, 4, '', f' {lost}')


@_fault('note mrpc/dev quotes: MRPC/dev.tsv:6')
def _an_open_quotation(folder):
  folder.surround('MRPC/dev.tsv', 6, 3, '"')


@_fault()
def _a_closed_quotation(folder):
  folder.surround('MRPC/dev.tsv', 6, 3, '"', '"')


@_fault('warning sst2/train quoted: SST-2/train.tsv:12')
def _written_with_quoting(folder):
  folder.surround('SST-2/train.tsv', 12, 0, '"""Yes"" ', '"')


@_fault('error rte/train malformed: RTE/train.tsv:5, RTE/train.tsv:20')
def _wrong_numbers_of_columns(folder):
  lines = folder.lines('RTE/train.tsv')
  lines[4] = lines[4].rpartition('\t')[0]
  lines[19] += '\tmore'
  folder.write('RTE/train.tsv', lines)


@_fault('note qqp/train malformed: QQP/train.tsv:6')
def _a_malformed_row_of_qqp(folder):
  folder.set_fields('QQP/train.tsv', 6, {5: ''})


@_fault('warning qqp/train malformed: QQP/train.tsv:6, QQP/train.tsv:7')
def _more_of_them_than_qqp_has(folder):
  folder.set_fields('QQP/train.tsv', 6, {5: ''})
  folder.set_line('QQP/train.tsv', 7, 'half a row')


@_fault(
  'warning wnli/dev empty_text: WNLI/dev.tsv:3, WNLI/dev.tsv:11',
)
def _empty_texts(folder):
  folder.set_fields('WNLI/dev.tsv', 11, {1: ''})
  folder.set_fields('WNLI/dev.tsv', 3, {2: ' '})


@_fault('error rte/train label: RTE/train.tsv:9, RTE/train.tsv:13')
def _unknown_labels(folder):
  folder.set_fields('RTE/train.tsv', 9, {3: 'neutral'})
  folder.set_fields('RTE/train.tsv', 13, {3: ''})


@_fault('error stsb/train label: STS-B/train.tsv:3, STS-B/train.tsv:8')
def _scores_out_of_the_scale(folder):
  folder.set_fields('STS-B/train.tsv', 3, {9: '5.2'})
  folder.set_fields('STS-B/train.tsv', 8, {9: 'high'})


@_fault(
  'warning mnli/dev_matched class: MNLI/dev_matched.tsv',
  'note mnli/dev_matched shift: MNLI/dev_matched.tsv',
)
def _a_class_absent(folder):
  for line in range(2, 26):
    if folder.fields('MNLI/dev_matched.tsv', line)[15] == 'neutral':
      folder.set_fields('MNLI/dev_matched.tsv', line, {15: 'entailment'})


@_fault(
  'warning cola/train label_map: CoLA/train.tsv',
  'warning cola/dev shift: CoLA/dev.tsv',
)
def _a_map_the_wrong_way_round(folder):
  for line in range(1, 121):
    label = folder.fields('CoLA/train.tsv', line)[1]
    folder.set_fields('CoLA/train.tsv', line, {1: str(1 - int(label))})


@_fault('error cola/train header: CoLA/train.tsv:1')
def _a_header_too_many(folder):
  lines = folder.lines('CoLA/train.tsv')
  folder.write('CoLA/train.tsv', ['source\tlabel\tmark\tsentence', *lines])


@_fault(
  'error sst2/train header: SST-2/train.tsv:1',
  'error stsb/dev header: STS-B/dev.tsv:1',
  'error qnli/test header: QNLI/test.tsv:1',
)
def _no_header(folder):
  for file in ('SST-2/train.tsv', 'STS-B/dev.tsv', 'QNLI/test.tsv'):
    folder.write(file, folder.lines(file)[1:])


@_fault('warning rte/train columns: RTE/train.tsv:1')
def _other_names_of_columns(folder):
  folder.set_fields('RTE/train.tsv', 1, {1: 'premise'})


@_fault(
  'error qqp/train swapped: QQP/train.tsv:1',
  'error qqp/dev swapped: QQP/dev.tsv:1',
  'error qqp/test swapped: QQP/test.tsv:1',
  'error stsb/train swapped: STS-B/train.tsv:1',
  'error stsb/dev swapped: STS-B/dev.tsv:1',
  'error stsb/test swapped: STS-B/test.tsv:1',
)
def _archives_swapped(folder):
  shutil.move(folder.root / 'QQP', folder.root / 'other')
  shutil.move(folder.root / 'STS-B', folder.root / 'QQP')
  shutil.move(folder.root / 'other', folder.root / 'STS-B')


@_fault('warning wnli/dev size: WNLI/dev.tsv')
def _more_rows_than_official(folder):
  line = folder.lines('WNLI/dev.tsv')[1].split('\t')
  extra = [
    '\t'.join([line[0], f'{line[1]} {i} {i}', f'{line[2]} {i}', str(i % 2)])
    for i in range(100, 150)
  ]
  folder.write('WNLI/dev.tsv', [*folder.lines('WNLI/dev.tsv'), *extra])


@_fault('note rte/train duplicates: RTE/train.tsv:4 = RTE/train.tsv:40')
def _a_duplicate(folder):
  one, two = folder.fields('RTE/train.tsv', 4)[1:3]
  folder.set_fields(
    'RTE/train.tsv', 40, {1: f' {one.upper()}', 2: two.replace(' ', '  ')}
  )
  label = folder.fields('RTE/train.tsv', 4)[3]
  folder.set_fields('RTE/train.tsv', 40, {3: label})


@_fault('note qqp/train duplicates')
def _a_duplicate_in_the_other_order(folder):
  one, two = folder.fields('QQP/train.tsv', 4)[3:5]
  folder.set_fields('QQP/train.tsv', 41, {3: two, 4: one})


@_fault(
  'note rte/train duplicates: RTE/train.tsv:4 = RTE/train.tsv:40',
  'warning rte/train conflicts: RTE/train.tsv:4 = RTE/train.tsv:40',
)
def _a_conflict(folder):
  other = {'entailment': 'not_entailment', 'not_entailment': 'entailment'}
  _, one, two, label = folder.fields('RTE/train.tsv', 4)
  folder.set_fields('RTE/train.tsv', 40, {1: one, 2: two, 3: other[label]})


@_fault(
  'note stsb/train duplicates: STS-B/train.tsv:3 = STS-B/train.tsv:7,'
  ' STS-B/train.tsv:4 = STS-B/train.tsv:9',
  'warning stsb/train conflicts: STS-B/train.tsv:4 = STS-B/train.tsv:9',
)
def _scores_that_contradict_each_other(folder):
  for line, copy, scores in ((3, 7, ('2.0', '2.4')), (4, 9, ('2.0', '2.6'))):
    one, two = folder.fields('STS-B/train.tsv', line)[7:9]
    folder.set_fields('STS-B/train.tsv', line, {9: scores[0]})
    folder.set_fields('STS-B/train.tsv', copy, {7: one, 8: two, 9: scores[1]})


@_fault(
  'warning sst2/train overlap: SST-2/train.tsv:15 = SST-2/dev.tsv:3',
)
def _a_training_row_in_dev(folder):
  text = folder.fields('SST-2/train.tsv', 15)[0]
  folder.set_fields('SST-2/dev.tsv', 3, {0: text.upper()})


@_fault(
  'warning mrpc/train overlap: MRPC/train.tsv:15 = STS-B/test.tsv:3',
  'note stsb/test shared_texts',
)
def _a_training_row_in_the_test_set_of_another_task(folder):
  one, two = folder.fields('MRPC/train.tsv', 15)[3:5]
  folder.set_fields('STS-B/test.tsv', 3, {7: two, 8: one})


@_fault(
  'note qnli/train near_overlap: QNLI/train.tsv:11 ≈ AX/diagnostic.tsv:5',
)
def _nearly_a_training_row(folder):
  # Sets of 14 pairs of words each, the last with none: 26 of 30 are in both.
  one, two = 'a b c d e f g h i j k l m n', 'o p q r s t u v w x y z aa bb'
  folder.set_fields('QNLI/train.tsv', 11, {1: one, 2: two})
  changed = {1: 'O, p q r s t u v w x y z: aa bb!', 2: f'{one[:-1]}o'}
  folder.set_fields('AX/diagnostic.tsv', 5, changed)


@_fault()
def _the_same_premise_with_another_hypothesis(folder):
  premise = ' '.join(f'word{i}' for i in range(60))
  folder.set_fields('RTE/train.tsv', 11, {1: premise, 2: 'it rains a lot'})
  changed = {1: f'{premise} so', 2: 'nobody was here'}
  folder.set_fields('RTE/dev.tsv', 5, changed)


@_fault('note mnli/dev_mismatched shared_texts')
def _a_sentence_of_a_pair_in_training(folder):
  text = folder.fields('CoLA/train.tsv', 15)[3]
  folder.set_fields('MNLI/dev_mismatched.tsv', 3, {9: text})


@_fault('note sst2/train truncation: SST-2/train.tsv:33')
def _a_long_text(folder):
  folder.set_fields('SST-2/train.tsv', 33, {0: 'aaaa ' * 40})


@_fault(
  'note sst2/train truncation: SST-2/train.tsv:33',
  'warning sst2/train long_row: SST-2/train.tsv:33',
)
def _many_rows_in_one(folder):
  folder.set_fields('SST-2/train.tsv', 33, {0: 'aaaa ' * 1001})


@_fault('warning sst2/dev shift: SST-2/dev.tsv')
def _labels_distributed_otherwise(folder):
  for line in range(2, 25):
    folder.set_fields('SST-2/dev.tsv', line, {1: '1'})
  folder.set_fields('SST-2/dev.tsv', 25, {1: '0'})


@_fault(
  'error stars/train malformed: '
  + ', '.join(f'stars/train.jsonl:{line}' for line in (2, 3, 4, 5, 6))
)
def _json_lines(folder):
  for line, content in (
    (2, '{"review": "x"'),
    (3, '["review"]'),
    (4, '{"stars": 3}'),
    (5, '{"review": 5, "stars": 3}'),
    (6, '{"review": "a half \\ud800", "stars": 3}'),
  ):
    folder.set_line('stars/train.jsonl', line, content)


@_fault('error stars/dev label: stars/dev.jsonl:2, stars/dev.jsonl:3')
def _json_scores(folder):
  for line, score in ((2, 0.5), (3, None)):
    row = {'review': f'a row of {line}', 'stars': score}
    folder.set_line('stars/dev.jsonl', line, json.dumps(row))


@pytest.mark.parametrize('name', _FAULTS)
def test_a_fault_is_found_where_it_is(folder, name):
  plant, expected = _FAULTS[name]
  plant(folder)
  assert _summary(folder.report()) == set(expected)


def test_nothing_is_found_in_good_files(folder):
  report = folder.report()
  assert {(f.severity, f.check) for f in report.findings} == {('note', 'size')}
  assert findings.exit_code(report.findings) == 0
  assert {f'{s.task}/{s.split}' for s in report.splits} == {
    f'{name}/{split}' for name, t in glue.TASKS.items() for split in t.tables
  } | {'stars/train', 'stars/dev'}


def test_findings_do_not_hide_each_other(folder):
  planted = (
    'wrong_numbers_of_columns',
    'a_map_the_wrong_way_round',
    'written_with_quoting',
    'scores_out_of_the_scale',
    'a_training_row_in_dev',
    'an_open_quotation',
    'json_lines',
  )
  for name in planted:
    _FAULTS[name][0](folder)
  found = _summary(folder.report())
  for name in planted:
    assert set(_FAULTS[name][1]) <= found, name


@pytest.mark.parametrize(
  ('rows', 'checks'), [(108_436, ['version']), (104_743, [])], ids=['v1', 'v2']
)
def test_qnli_v1_is_told_from_v2(rows, checks):
  split = rows_lib.Rows(glue.TASKS['qnli'], 'train', label=np.zeros(rows))
  found = list(contents.check_size(split))
  assert [(f.severity, f.check) for f in found] == [
    ('warning', check) for check in checks
  ]


@pytest.mark.parametrize(
  ('severities', 'code'),
  [
    ((), 0),
    (('note', 'note'), 0),
    (('note', 'warning'), 1),
    (('error', 'warning', 'note'), 3),
  ],
)
def test_exit_code_is_that_of_the_worst(severities, code):
  found = [findings.Finding(s, 'rte', 'dev', 'x', 'y') for s in severities]
  assert findings.exit_code(found) == code


def test_counts_and_words_of_a_finding(folder):
  for line in (3, 5):
    text = folder.fields('SST-2/train.tsv', line)[0]
    folder.set_fields('SST-2/dev.tsv', line, {0: text, 1: '1'})
    folder.set_fields('SST-2/train.tsv', line + 60, {0: text, 1: '0'})
    folder.set_fields('SST-2/train.tsv', line, {1: '0'})
  report = folder.report(tasks=('sst2',))
  (overlap,) = (f for f in report.findings if f.check == 'overlap')
  assert overlap.count == 4
  assert overlap.what == (
    'training rows that are also in sst2/dev, as 2 of its 24 rows; distinct'
    ' ones: 2; rows with another label: 2'
  )


def test_rows_of_tfds_are_named_by_uid(folder, monkeypatch):
  """TFDS's reader is replaced by the one of files, which gives equal rows."""

  def read(task, split, tfds_dir):
    path = folder.root / task.tables[split].file
    return str(path), list(tsv.read(path, task.tables[split]))

  _a_conflict(folder)
  monkeypatch.setattr(tfds_source, 'read', read)
  monkeypatch.setattr(
    tfds_source,
    'is_present',
    lambda split, tfds_dir: split != 'glue/rte:validation',
  )
  report = folder.report(**{'tasks': ('rte',), 'data.source': 'tfds'})
  places = ('rte/train/2 = rte/train/38',)
  assert _summary(report) == {
    ('error', 'rte/dev', 'missing', ('glue/rte:validation',)),
    ('note', 'rte/train', 'duplicates', places),
    ('warning', 'rte/train', 'conflicts', places),
  }


def test_nothing_is_found_in_generated_rows(folder):
  report = folder.report(tasks=('demo_sentiment', 'demo_nli'))
  assert not report.findings
  assert [s.rows for s in report.splits] == [240, 100, 50, 320, 100, 50]


def test_the_diagnostic_set_where_the_download_script_puts_it(folder):
  (folder.root / 'AX').rename(folder.root / 'diagnostic')
  # A subset of the official rows, as all files of the folder are.
  (found,) = (f for f in folder.report().findings if f.split == 'ax')
  assert (found.check, found.places) == ('size', ('diagnostic/diagnostic.tsv',))
  (folder.root / 'diagnostic').rename(folder.root / 'elsewhere')
  (found,) = (f for f in folder.report().findings if f.split == 'ax')
  assert found.what == (
    'no AX/diagnostic.tsv or diagnostic/diagnostic.tsv: it cannot be predicted'
  )


@pytest.mark.parametrize(
  ('scale', 'scores', 'expected'),
  [
    ((1.0, 5.0), [1, 2, 2, 4.6], {'1': 1, '2': 2, '3': 0, '4': 0, '5': 1}),
    ((0.0, 1.0), [0.05, 1.0], {'0 to 0.1': 1, '0.9 to 1': 1}),
    ((0.0, 100.0), [10, 19.5], {'10 to 20': 2}),
  ],
)
def test_shares_of_scores_have_names(scale, scores, expected):
  task = dataclasses.replace(glue.TASKS['stsb'], scale=scale)
  rows = rows_lib.Rows(task, 'train', label=np.array(scores, np.float64))
  counts = (contents.shares(rows) * len(scores)).tolist()
  found = dict(zip(contents.share_names(task), counts, strict=True))
  assert {name: n for name, n in found.items() if n or name in expected} == {
    name: pytest.approx(n) for name, n in expected.items()
  }
