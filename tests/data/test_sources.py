"""Readers of TSV and JSONL files: rows, uids and the user's mistakes."""

import contextlib
import gc
import hashlib
import json
import logging
import os
import pathlib
import tracemalloc

import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import sources
from bam_jax.tasks import demo
from bam_jax.tasks import glue
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_DATA = config_lib.DataConfig(dir='data')
_HOW = (
  "GLUE's own download_glue_data.py --data_dir=DIR --tasks=all gets it, or"
  ' set config.data.source=tfds'
)


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
  """Errors tell paths as given; here they are given below the test's folder."""
  monkeypatch.chdir(tmp_path)


def _write(path: str, content: str | bytes) -> None:
  file = pathlib.Path('data', path)
  file.parent.mkdir(parents=True, exist_ok=True)
  file.write_bytes(content if isinstance(content, bytes) else content.encode())


def _read(task: task_lib.Task, split: str = 'train') -> list[task_lib.Example]:
  return list(sources.read(task, split, _DATA))


def _message(task: task_lib.Task, split: str = 'train') -> str:
  with pytest.raises(errors.UserError) as caught:
    _read(task, split)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def _task(
  kind: str = 'classification', scale=(0.0, 5.0), **table
) -> task_lib.Task:
  """A task with one file, data/own.tsv or data/own.jsonl."""
  table = {'text': ('text',), 'label': 'label', 'file': 'own.tsv'} | table
  return task_lib.Task(
    name='own',
    kind=kinds.KINDS[kind],
    labels=('no', 'yes') if kind == 'classification' else (),
    scale=scale,
    metrics=('accuracy',),
    paper_metric='accuracy',
    tables={'train': task_lib.Table(**table)},
  )


def _jsonl_task(**table) -> task_lib.Task:
  return _task(file='own.jsonl', format='jsonl', **table)


def test_cola_has_no_header_but_its_test_file_has():
  _write('CoLA/train.tsv', 'gj04\t1\t\tBirds fly.\ngj04\t0\t*\tFly the bird.\n')
  _write('CoLA/dev.tsv', 'gj04\t1\t\tNo newline at the end.')
  _write('CoLA/test.tsv', 'index\tsentence\n0\tThey sleep.\n')
  cola = glue.TASKS['cola']
  assert _read(cola) == [
    ('cola/train/0', 'Birds fly.', None, 1),
    ('cola/train/1', 'Fly the bird.', None, 0),
  ]
  assert _read(cola, 'dev') == [
    ('cola/dev/0', 'No newline at the end.', None, 1)
  ]
  assert _read(cola, 'test') == [('cola/test/0', 'They sleep.', None, None)]


def test_byte_order_mark_and_quotation_marks():
  _write(
    'MRPC/train.tsv',
    '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n'
    '1\t1\t2\t"It is open\tHe said : "" yes "" .\n'
    '0\t3\t4\tIt" is\t"\n',
  )
  assert _read(glue.TASKS['mrpc']) == [
    ('mrpc/train/0', '"It is open', 'He said : "" yes "" .', 1),
    ('mrpc/train/1', 'It" is', '"', 0),
  ]


def test_byte_order_mark_before_a_named_column():
  _write('own.tsv', '\ufefftext\tlabel\nx\tyes\n')
  assert _read(_task()) == [('own/train/0', 'x', None, 1)]


def test_malformed_rows_of_qqp_are_skipped_but_counted(caplog):
  _write(
    'QQP/train.tsv',
    'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n'
    '7\t1\t2\tWho?\tWhom?\t1\n'
    '8\t3\t4\tA question that goes on\n'
    'in the next line?\tYes?\t0\n'
    '\n'
    '9\t5\t6\tWhen?\tHow?\t\n'
    '10\t7\t8\tWhy?\tWhere?\t0\n',
  )
  with caplog.at_level(logging.INFO):
    assert _read(glue.TASKS['qqp']) == [
      ('qqp/train/0', 'Who?', 'Whom?', 1),
      ('qqp/train/4', 'Why?', 'Where?', 0),
    ]
  assert caplog.messages == [
    'data/QQP/train.tsv: skipped 3 malformed rows of 5'
  ]


def test_labels_by_name_and_columns_from_the_official_files():
  columns = ['index', *'abcdefg', 'sentence1', 'sentence2', 'l1', 'gold_label']
  row = ['0', *'.......', 'p', 'h', 'neutral', 'contradiction']
  _write('MNLI/train.tsv', '\t'.join(columns) + '\n' + '\t'.join(row) + '\n')
  _write('AX/diagnostic.tsv', 'index\tsentence1\tsentence2\n0\tp\th\n')
  mnli = glue.TASKS['mnli']
  assert _read(mnli) == [('mnli/train/0', 'p', 'h', 2)]
  assert _read(mnli, 'ax') == [('mnli/ax/0', 'p', 'h', None)]


def test_scores_stay_in_the_scale_of_the_task():
  header = '\t'.join('abcdefghij')
  rows = ''.join(
    '\t'.join([*'1234567', 'x', 'y', score]) + '\n'
    for score in ('5.000', '2.917', '0', '3.77777777777778')
  )
  _write('STS-B/train.tsv', f'{header}\n{rows}')
  labels = [example.label for example in _read(glue.TASKS['stsb'])]
  # The last as the shortest decimal that rounds to the same float32.
  assert labels == [5.0, 2.917, 0.0, 3.7777777]
  assert all(isinstance(label, float) for label in labels)


def test_lines_end_as_python_reads_text():
  _write('own.tsv', 'text\tlabel\r\na\u2028b\x85c\x0bd\tyes\r\n \tno\r\n')
  assert _read(_task()) == [
    ('own/train/0', 'a\u2028b\x85c\x0bd', None, 1),
    ('own/train/1', ' ', None, 0),
  ]


def test_absolute_files_and_columns_from_the_end(tmp_path):
  (tmp_path / 'far.tsv').write_text('a\tb\tx\tyes\n')
  task = _task(
    file=str(tmp_path / 'far.tsv'), text=(-2, 0), label=-1, header=False
  )
  assert _read(task) == [('own/train/0', 'x', 'a', 1)]


def test_jsonl():
  _write(
    'own.jsonl',
    '{"text": "a\\tb\\n\\u00e9", "label": "yes", "more": [1]}\n'
    '\n'
    '{"label": "no", "text": ""}\n',
  )
  assert _read(_jsonl_task()) == [
    ('own/train/0', 'a\tb\n\u00e9', None, 1),
    ('own/train/1', '', None, 0),
  ]


def test_jsonl_scores_may_be_numbers_or_strings():
  _write('own.jsonl', '{"s": 3, "t": "x"}\n{"s": "4.5", "t": "y"}\n')
  task = _jsonl_task(kind='regression', text=('t',), label='s')
  assert [example.label for example in _read(task)] == [3.0, 4.5]


def test_generated_rows_come_from_the_demo():
  task = demo.TASKS['demo_nli']
  assert _read(task, 'dev') == demo.generate('demo_nli', 'dev')


def test_rows_are_streamed():
  _write('own.tsv', 'text\tlabel\nx\tyes\nx\toops\n')
  rows = sources.read(_task(), 'train', _DATA)
  assert next(rows).label == 1
  with pytest.raises(errors.UserError):
    next(rows)


def test_is_present():
  _write('own.tsv', '')
  assert sources.Source(_task(), 'train', _DATA).is_present()
  assert not sources.Source(_task(file='gone.tsv'), 'train', _DATA).is_present()
  assert not sources.Source(_task(file='.'), 'train', _DATA).is_present()
  assert sources.Source(demo.TASKS['demo_nli'], 'dev', _DATA).is_present()


@pytest.mark.parametrize(
  ('content', 'table', 'message'),
  [
    pytest.param(
      'text\tlabel\nx\tyes\ty\n',
      {},
      'data/own.tsv:2: 3 columns where the first line has 2; fix the row',
      id='wrong-column-count',
    ),
    pytest.param(
      'x\tyes\nx\n',
      {'text': (0,), 'label': 1, 'header': False},
      'data/own.tsv:2: 1 columns where the first line has 2; fix the row',
      id='wrong-column-count-without-header',
    ),
    pytest.param(
      'text\tlabel\n\nx\tperhaps\n',
      {},
      "data/own.tsv:3: label 'perhaps' is none of 'no', 'yes'; fix the row or"
      " the labels of task 'own'",
      id='unknown-label',
    ),
    pytest.param(
      'text\tlabel\nx\t5.01\n',
      {'kind': 'regression'},
      'data/own.tsv:2: score 5.01 is not from 0 to 5; fix the row or the scale'
      " of task 'own'",
      id='score-above-the-scale',
    ),
    pytest.param(
      'text\tlabel\nx\tnan\n',
      {'kind': 'regression'},
      "data/own.tsv:2: score 'nan' is not a number; fix the row; or skip rows"
      " without a label by config.custom_tasks.own.no_label=('nan',)",
      id='score-nan',
    ),
    pytest.param(
      'text\tlabel\nx\thigh\n',
      {'kind': 'regression'},
      "data/own.tsv:2: score 'high' is not a number; fix the row",
      id='score-no-number',
    ),
    pytest.param(
      'words\tlabel\nx\tyes\n',
      {},
      "data/own.tsv:1: no column 'text'; the first line has words, label; name"
      ' one of these, or set header=False if the first line is data',
      id='no-such-name',
    ),
    pytest.param(
      f'{"so it goes " * 100}\tyes\n',
      {},
      f"data/own.tsv:1: no column 'text'; the first line has"
      f' {"so it goes " * 8}so it [...]; name one of these, or set'
      ' header=False if the first line is data',
      id='no-header',
    ),
    pytest.param(
      'text\tlabel\nx\tyes\n',
      {'label': 2},
      'data/own.tsv:1: no column 2; the first line has columns 0 to 1; fix'
      ' the file, or name another column',
      id='no-such-number',
    ),
    pytest.param(
      b'text\tlabel\r\nx\tyes\r\nhall\xf6\tno\r\n',
      {},
      'data/own.tsv:3: not UTF-8 (invalid start byte); convert the file to'
      ' UTF-8, by iconv -f cp1252 -t utf-8 if Excel or another program of'
      ' Windows wrote it',
      id='broken-utf8',
    ),
    pytest.param(
      'text\tlabel\n\n',
      {},
      'data/own.tsv: has no usable row; fix config.data.dir or'
      ' config.custom_tasks.own',
      id='header-alone',
    ),
    pytest.param(
      '',
      {},
      'data/own.tsv: has no usable row; fix config.data.dir or'
      ' config.custom_tasks.own',
      id='empty-file',
    ),
  ],
)
def test_tsv_mistakes(content, table, message):
  _write('own.tsv', content)
  assert _message(_task(**table)) == message


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    pytest.param(
      '{"text": "x", "label": "yes"}\n{"text": "x" "label": "yes"}\n',
      "data/own.jsonl:2: not JSON (Expecting ',' delimiter at column 14); fix"
      ' the row',
      id='syntax',
    ),
    pytest.param(
      'text,label\nx,yes\n',
      'data/own.jsonl:1: not JSON (Expecting value at column 1); give one JSON'
      ' object per line, or name the format of the file',
      id='another-format',
    ),
    pytest.param(
      '["x", "yes"]\n',
      'data/own.jsonl:1: a list in place of an object; give one JSON object'
      ' per line',
      id='no-object',
    ),
    pytest.param(
      '{"words": "x", "label": "yes"}\n',
      "data/own.jsonl:1: no field 'text'; the object has words, label",
      id='no-field',
    ),
    pytest.param(
      '{"text": 3, "label": "yes"}\n',
      "data/own.jsonl:1: field 'text' is not a string; give a string",
      id='text-no-string',
    ),
    pytest.param(
      '{"text": "\\ud800", "label": "yes"}\n',
      "data/own.jsonl:1: field 'text' holds half of a surrogate pair;"
      ' remove that half',
      id='lone-surrogate',
    ),
    pytest.param(
      '{"text": "x", "label": "yes", "text": "y"}\n',
      "data/own.jsonl:1: key 'text' twice; give one JSON object per line",
      id='twice',
    ),
    pytest.param(
      '{"text": "x", "label": ' + '[' * 9999 + ']' * 9999 + '}\n',
      'data/own.jsonl:1: nested too deep; give one JSON object per line',
      id='deep',
    ),
    pytest.param(
      '{"text": "x", "label": ' + '1' * 5000 + '}\n',
      'data/own.jsonl:1: Exceeds the limit (4300 digits) for integer string'
      ' conversion: value has 5000 digits; use sys.set_int_max_str_digits() to'
      ' increase the limit; give one JSON object per line',
      id='digits',
    ),
    pytest.param(
      '{"text": "x", "label": null}\n',
      "data/own.jsonl:1: label 'null' is none of 'no', 'yes'; fix the row or"
      " the labels of task 'own'; or skip rows without a label by"
      " config.custom_tasks.own.no_label=('null',)",
      id='label-null',
    ),
    pytest.param(
      b'{"text": "\xff", "label": "yes"}\n',
      'data/own.jsonl:1: not UTF-8 (invalid start byte); convert the file to'
      ' UTF-8, by iconv -f cp1252 -t utf-8 if Excel or another program of'
      ' Windows wrote it',
      id='broken-utf8',
    ),
  ],
)
def test_jsonl_mistakes(content, message):
  _write('own.jsonl', content)
  assert _message(_jsonl_task()) == message


def test_a_line_without_an_end_is_not_read_whole():
  _write('own.tsv', 'text\tlabel\nx\tyes\n')
  with pathlib.Path('data/own.tsv').open('r+b') as file:
    file.truncate(1 << 31)  # A hole: zeros that take no room on the disk.
  tracemalloc.start()
  try:
    assert _message(_task()) == (
      'data/own.tsv:3: a line of 1048576 characters or more; fix the row'
    )
    assert tracemalloc.get_traced_memory()[1] < 1 << 25
  finally:
    tracemalloc.stop()


def test_a_pipe_is_not_waited_for():
  pathlib.Path('data').mkdir()
  os.mkfifo('data/own.tsv')
  assert _message(_task()) == (
    'data/own.tsv: is not a regular file; give one that holds the rows'
  )


def test_a_missing_official_file_tells_how_to_get_it():
  assert _message(glue.TASKS['rte']) == (
    f'data/RTE/train.tsv: No such file or directory; {_HOW}'
  )
  _write('QQP/train.tsv', 'a\tb\tc\td\te\tf\n1\t2\n')
  assert _message(glue.TASKS['qqp']) == (
    f'data/QQP/train.tsv: has no usable row; {_HOW}'
  )


def test_a_missing_own_file():
  assert _message(_task()) == (
    'data/own.tsv: No such file or directory; fix config.data.dir or'
    ' config.custom_tasks.own'
  )


def test_digest_is_that_of_canonical_json_lines():
  rows = [
    task_lib.Example('t/train/0', 'caf\u00e9', None, 1),
    task_lib.Example('t/train/1', 'a', 'b', None),
    task_lib.Example('t/train/2', 'a', 'b', 2.5),
  ]
  lines = (
    b'["t/train/0","caf\\u00e9",null,1]\n'
    b'["t/train/1","a","b",null]\n'
    b'["t/train/2","a","b",2.5]\n'
  )
  assert sources.rows_digest(iter(rows)) == hashlib.sha256(lines).hexdigest()
  assert sources.rows_digest(rows[::-1]) != sources.rows_digest(rows)


def test_a_used_name_that_stands_twice():
  _write('own.tsv', 'text\tlabel\ttext\nx\tyes\ty\n')
  assert _message(_task()) == (
    "data/own.tsv:1: two columns are named 'text'; rename or remove one of them"
  )
  _write('own.tsv', 'label\ttext\tlabel\nno\tx\tyes\n')
  assert _message(_task()) == (
    "data/own.tsv:1: two columns are named 'label'; rename or"
    ' remove one of them'
  )


def test_names_that_stand_twice_and_are_not_used():
  """Such as the empty names of an index; by its number a column is unique."""
  _write('own.tsv', '\ttext\tid\tlabel\t\tid\n1\tx\t2\tyes\t3\t4\n')
  assert _read(_task()) == [('own/train/0', 'x', None, 1)]
  _write('own.tsv', 'text\ttext\tlabel\nx\ty\tyes\n')
  task = _task(text=(1,), label=2)
  assert _read(task) == [('own/train/0', 'y', None, 1)]


@pytest.mark.parametrize(
  'score', ['1_0', '\u0663', ' 1', '1\u00a0', 'Infinity']
)
@pytest.mark.parametrize('format', ['tsv', 'jsonl'])
def test_scores_are_decimal_numbers(format, score):
  _write('own.tsv', f'text\tlabel\nx\t{score}\n')
  _write('own.jsonl', json.dumps({'text': 'x', 'label': score}) + '\n')
  task = _task('regression', (0.0, 50.0), file=f'own.{format}', format=format)
  remedy = 'fix the row'
  if score.strip() == '1':
    remedy = 'write 1, without blanks around it, in all rows'
  assert _message(task).endswith(f'score {score!r} is not a number; {remedy}')


def test_json_has_no_words_for_numbers():
  _write('own.jsonl', '{"text": "x", "label": NaN}\n')
  message = _message(_jsonl_task(kind='regression'))
  assert "score 'NaN' is not a number" in message


def test_the_layout_of_the_download_script():
  """`diagnostic/` is read where there is no `AX/`, and named where neither."""
  mnli, rows = glue.TASKS['mnli'], 'index\tsentence1\tsentence2\n0\t{}\th\n'
  assert not sources.Source(mnli, 'ax', _DATA).is_present()
  assert sources.Source(mnli, 'ax', _DATA).name == (
    'AX/diagnostic.tsv or diagnostic/diagnostic.tsv'
  )
  _write('diagnostic/diagnostic.tsv', rows.format('script'))
  assert sources.Source(mnli, 'ax', _DATA).is_present()
  assert _read(mnli, 'ax') == [('mnli/ax/0', 'script', 'h', None)]
  _write('AX/diagnostic.tsv', rows.format('site'))
  assert _read(mnli, 'ax') == [('mnli/ax/0', 'site', 'h', None)]
  assert sources.Source(glue.TASKS['rte'], 'test', _DATA).name == 'RTE/test.tsv'


@pytest.mark.parametrize(
  ('file', 'make', 'content'),
  [
    ('own.tsv', _task, 'text\tlabel\na\tno\nb\n' + 'c\tyes\n' * 9),
    ('own.jsonl', _jsonl_task, '{"text": 1}\n' + '{"text": "a"}\n' * 9),
  ],
)
def test_a_refused_file_is_closed_without_the_garbage_collector(
  monkeypatch, file, make, content
):
  """Otherwise Python warns of it in whichever code runs when it collects."""
  opened = []
  original = pathlib.Path.open

  def tracked(self, *args, **kwargs):
    opened.append(original(self, *args, **kwargs))
    return opened[-1]

  _write(file, content)
  monkeypatch.setattr(pathlib.Path, 'open', tracked)
  gc.disable()
  try:
    with contextlib.suppress(errors.UserError):
      _read(make())
    assert opened
    assert all(file.closed for file in opened)
  finally:
    gc.enable()
