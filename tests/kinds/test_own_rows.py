"""Rows of a user's own, of every kind of task, through one model.

Oracle: what an evaluation says of the same rows, from files of their format.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.special

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import prepare
from bam_jax.data import registry
from bam_jax.data import unlabelled
from bam_jax.inference import model as model_lib
from bam_jax.inference import own_file
from bam_jax.serving import requests
from bam_jax.tasks import demo
from bam_jax.training import evaluate
from tests.configs import kinds as kinds_config
from tests.kinds import rows as rows_lib
from tests.serving import tiny_model

_OWN = ('demo_sentiment', 'demo_similarity', 'moods', 'names', 'things')


class _Split:
  """A folder of raw files, a model of random weights, and what it evaluates."""

  def __init__(self, folder: Path):
    self.data = folder
    rows_lib.write(folder)
    tiny = tiny_model.make(kinds_config.get_config, 0.2)
    self.model = tiny.model
    config = kinds_config.get_config()
    config.data.dir = str(folder)
    config.data.max_length = tiny_model.MAX_LENGTH
    config = config_lib.from_config_dict(config)
    tasks = registry.resolve(config)
    splits = {
      task.name: {
        'dev': prepare.prepare(
          task,
          'dev',
          config.data,
          tiny.encoder.tokenizer,
          folder / 'features' / task.name,
        )
      }
      for task in tasks.tasks
    }
    params = tiny.on_devices
    self.logits, _ = evaluate.evaluate(
      tiny.setup.programs, params, splits, config.packing
    )
    evaluate.save(folder / 'outputs.npz', tasks, splits, self.logits)

  def evaluated(self, task: str) -> dict[str, np.ndarray]:
    """What an evaluation keeps of the dev split of a task."""
    with np.load(self.data / 'outputs.npz') as arrays:
      start = f'{task}/dev/'
      return {
        key.removeprefix(start): value
        for key, value in arrays.items()
        if key.startswith(start)
      }


@pytest.fixture(scope='module')
def split(tmp_path_factory) -> _Split:
  return _Split(tmp_path_factory.mktemp('kinds'))


@pytest.fixture(scope='module')
def model(split) -> model_lib.Model:
  return split.model


def _dev_rows(split, task: str) -> list[dict[str, object]]:
  """The dev split, each row as an object of a user's own file."""
  if task.startswith('demo'):
    names = ('text', 'text_pair')
    return [
      dict(zip(names, filter(None, (row.text_a, row.text_b))))
      for row in demo.generate(task, 'dev')
    ]
  if task == 'moods':
    text = (split.data / 'moods' / 'dev.jsonl').read_text()
    return [{'text': json.loads(line)['text']} for line in text.splitlines()]
  if task == 'names':
    text = (split.data / 'names' / 'dev.conll').read_text()
    blocks = text.removeprefix('-DOCSTART- O\n\n').split('\n\n')
    return [
      {'words': [line.split()[0] for line in block.splitlines()]}
      for block in blocks
    ]
  content = json.loads((split.data / 'things' / 'dev.json').read_text())
  return [
    {'question': entry['question'], 'context': paragraph['context']}
    for paragraph in content['data'][0]['paragraphs']
    for entry in paragraph['qas']
  ]


def _write_rows(path: Path, rows: list[dict[str, object]]) -> None:
  if path.suffix == '.jsonl':
    lines = [json.dumps(row) for row in rows]
  else:
    rows = [
      {'text': ' '.join(row['words'])} if 'words' in row else row
      for row in rows
    ]
    lines = ['\t'.join(row) for row in (rows[0], *map(dict.values, rows))]
  path.write_text('\n'.join(lines) + '\n')


def _assert_as_evaluated(task: str, found: list[dict], kept, logits) -> None:
  """Predictions as JSON against the arrays of the evaluation."""
  # What is the same for all rows would hide a wrong order.
  assert len({json.dumps(row) for row in found}) > 4
  if task == 'moods':
    np.testing.assert_allclose(
      [[*row['probabilities'].values()] for row in found],
      scipy.special.expit(logits),
      atol=1e-5,
    )
    assert [row['labels'] for row in found] == [
      [label for label, logit in zip(_LABELS[task], row) if logit > 0]
      for row in kept['logits']
    ]
  elif task == 'demo_sentiment':
    shares = scipy.special.softmax(kept['logits'], axis=-1)
    for row, share in zip(found, shares, strict=True):
      assert row['label'] == ('negative', 'positive')[share.argmax()]
      np.testing.assert_allclose(
        [*row['probabilities'].values()], share, atol=1e-5
      )
  elif task == 'demo_similarity':
    scores = 5 * scipy.special.expit(kept['logits'][:, 0])
    np.testing.assert_allclose(
      [row['score'] for row in found], scores, atol=1e-4
    )
  else:
    text = {
      'names': lambda row: ' '.join(row['tags']),
      'things': lambda row: ' '.join((row['answer'] or '').split()),
    }[task]
    assert [*map(text, found)] == kept['prediction'].tolist()


@pytest.mark.parametrize('suffix', ['jsonl', 'tsv'])
@pytest.mark.parametrize('task', _OWN)
def test_own_rows_are_predicted_as_the_evaluation_does(
  split, model, tmp_path, task, suffix
):
  """Oracle: what an evaluation keeps of the same rows."""
  rows = _dev_rows(split, task)
  kept = split.evaluated(task)
  assert len(rows) == len(kept['uid'])
  source, output = tmp_path / f'in.{suffix}', tmp_path / f'out.{suffix}'
  _write_rows(source, rows)
  own_file.predict(model, task, str(source), str(output))
  lines = output.read_text().splitlines()
  if suffix == 'jsonl':
    found = [json.loads(line) for line in lines]
    assert not any(row['truncated'] for row in found)
    _assert_as_evaluated(task, found, kept, split.logits[task]['dev'])
    return
  header, *cells = [line.split('\t') for line in lines]
  assert header == ['prediction', *_LABELS.get(task, ()), 'error']
  assert {len(row) for row in cells} == {len(header)}
  if 'prediction' in kept:
    assert [row[0] for row in cells] == kept['prediction'].tolist()


_LABELS = {
  'demo_sentiment': ('negative', 'positive'),
  'moods': ('joy', 'anger', 'fear'),
}


def test_long_rows_are_windows_of_one_row_each(split, model):
  for task in ('names', 'things'):
    rows = _dev_rows(split, task)
    inputs = model.encode(
      task,
      [unlabelled.texts_of(model.tasks[task], row, 'here') for row in rows],
    )
    assert max(len(item.rows) for item in inputs) > 1


def test_all_kinds_in_one_batch(split, model):
  """Oracle: each input alone."""
  inputs = []
  for task in _OWN:
    declared = model.tasks[task]
    rows = [unlabelled.texts_of(declared, r, '') for r in
            _dev_rows(split, task)[:12]]  # fmt: skip
    inputs += model.encode(task, rows)
  order = np.random.default_rng(0).permutation(len(inputs))
  together = model.predict([inputs[i] for i in order])
  for place, number in enumerate(order):
    if place % 4:  # Some are enough.
      continue
    (alone,) = model.predict([inputs[number]])
    found = together[place].as_json()
    for key, value in alone.as_json().items():
      if key in ('score', 'probabilities'):
        assert found[key] == pytest.approx(value, abs=1e-4)
      else:
        assert found[key] == value


def test_answers_stand_in_their_contexts(split, model):
  rows = _dev_rows(split, 'things')
  texts = [(row['question'], row['context']) for row in rows]
  found = [r.as_json() for r in model.predict(model.encode('things', texts))]
  assert any(row['answer'] for row in found)
  for row, (_, context) in zip(found, texts, strict=True):
    if row['answer'] is None:
      assert row['start'] is row['end'] is None
    else:
      assert context[row['start'] : row['end']] == row['answer']


def test_what_is_read_in_part_is_told(model):
  """A word of more pieces than a window, a question of more than half of one.

  Sentences and contexts of any length are read whole.
  """
  half = model.encode('things', [('what ' * 20, 'a car .')])
  assert [item.truncated for item in half] == [True]
  for task, texts in (
    ('names', ('the doctor ' * 200,)),
    ('things', ('what ?', 'a car . ' * 200)),
  ):
    (item,) = model.encode(task, [texts])
    assert not item.truncated
    assert len(item.rows) > 5
  # Spelt by its letters, as the demo vocabulary has no such word.
  (item,) = model.encode('names', [('Zoe ' + 'z' * 60,)])
  assert item.truncated


@pytest.mark.parametrize(
  ('task', 'row', 'message'),
  [
    (
      'names',
      {'words': 'Zoe'},
      r"'words' is not a list; give a list of strings",
    ),
    ('names', {'words': []}, r"'words' has no word; give at least one word"),
    (
      'names',
      {'words': ['a', 1]},
      r"'words'\[1\] is not a string; give a string",
    ),
    ('names', {'words': ['a b']}, r"'words'\[0\] is 'a b'; give a word, with"),
    ('names', {'words': ['']}, r"'words'\[0\] is ''; give a word"),
    ('names', {'text': ' \t'}, r"'text' has no word; give at least one word"),
    (
      'names',
      {'tokens': ['a']},
      r"no 'words', nor 'text'; here are 'tokens'; give",
    ),
    ('things', {'question': 'a', 'context': ' '}, r"'context' is empty; give"),
    ('things', {'question': '', 'context': 'a'}, r"'question' is empty; give"),
    ('things', {'question': 'a'}, r"no 'context' beside 'question'; give"),
    (
      'things',
      {'question': 'a', 'context': ['b']},
      r"'context' is not a string",
    ),
    ('moods', {'text': None}, r"'text' is missing \(null or NaN\); give a"),
    ('moods', {'words': ['a']}, r"no 'text'; here are 'words'; give"),
  ],
)
def test_a_wrong_row_is_refused_in_one_line(
  model, tmp_path, task, row, message
):
  path = tmp_path / 'in.jsonl'
  path.write_text(json.dumps(row) + '\n')
  with pytest.raises(errors.UserError, match=rf'in.jsonl:1: {message}') as told:
    own_file.predict(model, task, str(path), str(tmp_path / 'out.jsonl'))
  assert '\n' not in str(told.value)


@pytest.mark.parametrize('task', _OWN)
def test_empty_texts_are_refused_alike_by_file_and_server(
  model, tmp_path, task
):
  names = model.tasks[task].kind.input_names(model.tasks[task])[-1]
  row = dict.fromkeys(names, ' ')
  _write_rows(tmp_path / 'in.jsonl', [row])
  _write_rows(tmp_path / 'in.csv', [row])
  told = []
  for name in ('in.jsonl', 'in.csv'):
    with pytest.raises(errors.UserError) as error:
      own_file.predict(model, task, str(tmp_path / name), None)
    told.append(str(error.value).partition(f'{name}:')[2].partition(': ')[2])
  body = json.dumps({'inputs': [row], 'task': task}).encode()
  with pytest.raises(errors.UserError) as error:
    requests.parse(body, model.tasks, 1, 99)
  assert {f'inputs[0]: {each}' for each in told} == {str(error.value)}


def test_a_table_of_tagged_words_needs_a_header(model, tmp_path):
  """Numbers of columns of a CoNLL file say nothing of a table."""
  path = tmp_path / 'in.tsv'
  path.write_text('the doctor\n')
  with pytest.raises(errors.UserError, match=r"1: no 'words', nor 'text"):
    own_file.predict(model, 'names', str(path), None)
