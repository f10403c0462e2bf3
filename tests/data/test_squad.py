"""Files in SQuAD's layout, written by hand."""

import dataclasses
import json

import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import jsonl
from bam_jax.data import registry
from bam_jax.data import sources
from bam_jax.data import squad
from bam_jax.tasks import task as task_lib

_TABLE = task_lib.Table(
  text=('question', 'context'), label='answers', format='squad'
)
_CONTEXT = 'Zoe bought a boat.'
_GOOD = {'question': 'What?', 'answers': [{'text': 'boat', 'answer_start': 13}]}


def _file(tmp_path, *entries):
  path = tmp_path / 'rows.json'
  paragraph = {'context': _CONTEXT, 'qas': entries}
  path.write_text(json.dumps({'data': [{'paragraphs': [paragraph]}]}))
  return path


def test_questions_of_both_versions(tmp_path):
  none = {'question': 'Why?', 'is_impossible': True, 'answers': []}
  path = _file(tmp_path, _GOOD, none, {**_GOOD, 'is_impossible': False})
  found = ('What?', _CONTEXT), (('boat', 13),)
  assert [row[:4] for row in squad.read(path, _TABLE)] == [
    (0, 0, *found),
    (1, 0, ('Why?', _CONTEXT), ()),
    (2, 0, *found),
  ]


def test_without_answers(tmp_path):
  path = _file(tmp_path, {'question': 'What?'})
  table = task_lib.Table(text=('question', 'context'), format='squad')
  (row,) = squad.read(path, table)
  assert row[:4] == (0, 0, ('What?', _CONTEXT), None)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      {'answers': [{'text': 'boat', 'answer_start': 12}]},
      "the answer 'boat' is not at character 12 of the context; fix the row",
    ),
    (
      {'answers': [{'text': 'boat', 'answer_start': -5}]},
      "the answer 'boat' is not at character -5 of the context; fix the row",
    ),
    (
      {'answers': [{'text': '', 'answer_start': 1}]},
      "the answer '' is not at character 1 of the context; fix the row",
    ),
    (
      {'answers': None},
      "field 'answers' is not a list of answers; give each as"
      ' {"text": ..., "answer_start": ...}',
    ),
    (
      {'question': 3},
      "field 'question' is not a string; give a string",
    ),
    (
      {'question': '\ud800'},
      "field 'question' holds half of a surrogate pair; remove that half",
    ),
  ],
  ids=['elsewhere', 'before', 'empty', 'no-answers', 'no-text', 'surrogate'],
)
def test_a_question_that_cannot_be_used(tmp_path, change, message):
  path = _file(tmp_path, {**_GOOD, **change}, _GOOD)
  message = f'{path}, question 0 of the file: {message}'
  with pytest.raises(errors.UserError) as told:
    list(squad.read(path, _TABLE))
  assert str(told.value) == message
  faults = []
  assert [row.index for row in squad.read(path, _TABLE, faults.append)] == [1]
  assert [str(fault) for fault in faults] == [message]


@pytest.mark.parametrize(
  'content',
  ['[]', '{"data": 3}', '{"data": [{"paragraphs": [{"qas": [1]}]}]}', '{',
   '{"data": [{}]}'],
)  # fmt: skip
def test_another_layout_is_told_in_one_line(tmp_path, content):
  path = tmp_path / 'rows.json'
  path.write_text(content)
  with pytest.raises(errors.UserError) as told:
    list(squad.read(path, _TABLE))
  assert str(told.value).startswith(f'{path}: ')
  assert '\n' not in str(told.value)


def test_a_question_without_an_answer_has_to_be_allowed(tmp_path):
  path = _file(tmp_path, _GOOD, {'question': 'Why?', 'is_impossible': True})
  for unanswerable in (False, True):
    declared = config_lib.TaskConfig(
      kind='qa', format='squad', train=str(path), dev=str(path),
      unanswerable=unanswerable,
    )  # fmt: skip
    config = config_lib.Config(
      tasks=('things',), custom_tasks={'things': declared}
    )
    task = registry.resolve(config)['things']
    rows = sources.read(task, 'train', config.data)
    if unanswerable:
      assert [row.label for row in rows] == [(('boat', 13),), ()]
      continue
    with pytest.raises(errors.UserError) as told:
      list(rows)
    assert str(told.value) == (
      f'{path}, row 1: has no answer; fix the row or set'
      ' config.custom_tasks.things.unanswerable=True'
    )


@pytest.mark.parametrize('layout', ['list', 'lists'])
def test_flat_rows_are_those_of_the_nested_layout(tmp_path, layout):
  none = {'question': 'Why?', 'is_impossible': True, 'answers': []}
  entries = [{'id': 'a', **_GOOD}, {'id': 7, **none}, {'id': 'c', **none}]
  del entries[2]['is_impossible']
  path = _file(tmp_path, *entries)
  rows = [{'context': _CONTEXT, 'title': 't', **each} for each in entries]
  if layout == 'lists':  # As Hugging Face's library stores them.
    for row in rows:
      row['answers'] = {
        key: [answer[key] for answer in row['answers']]
        for key in ('text', 'answer_start')
      }
  flat = tmp_path / 'rows.jsonl'
  flat.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  found = []
  for format, file in (('squad', path), ('jsonl', flat)):
    declared = config_lib.TaskConfig(
      kind='qa', format=format, train=str(file), dev=str(file), test=str(file),
      unanswerable=True,
    )  # fmt: skip
    config = config_lib.Config(tasks=('own',), custom_tasks={'own': declared})
    task = registry.resolve(config)['own']
    examples = list(sources.read(task, 'train', config.data))
    rows = sources.read_raw(task, 'test', config.data, group='id')
    ids = {uid: row.group for uid, row in rows}
    found.append((examples, ids))
  assert found[0] == found[1]
  examples, ids = found[0]
  assert [row.label for row in examples] == [(('boat', 13),), (), ()]
  assert ids == {'own/test/0': 'a', 'own/test/1': '7', 'own/test/2': 'c'}


@pytest.mark.parametrize(
  'answers',
  [None, 'boat', [1], {'text': ['boat'], 'answer_start': []}, {'text': 'boat'}],
)
def test_mistakes_of_flat_rows(tmp_path, answers):
  path = tmp_path / 'rows.jsonl'
  row = {'context': _CONTEXT, 'question': 'What?', 'answers': answers}
  path.write_text(json.dumps(row))
  table = dataclasses.replace(_TABLE, format='jsonl', holds='answers')
  with pytest.raises(errors.UserError) as told:
    list(jsonl.read(path, table))
  assert str(told.value).startswith(
    f"{path}:1: field 'answers' is not a list of answers; give each as"
  )
