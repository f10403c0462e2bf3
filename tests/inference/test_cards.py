"""The code in the card of each kind, run as it stands, by our own model."""

import contextlib
import dataclasses
import functools
import io
import json
import re

import numpy as np
import pytest
import scipy.special

from bam_jax.data import features
from bam_jax.inference import card
from bam_jax.inference import export
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.tasks import demo
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib
from tests.modeling import models

_QUESTION = 'what is this?'
_CONTEXT = 'this is a text, and it has an answer.'
_WORDS = ['these', 'are', 'the', 'words', 'of', 'a', 'text']


def _task(name, kind, text, labels=(), **fields):
  return task_lib.Task(
    name=name,
    kind=kinds.KINDS[kind],
    labels=labels,
    metrics=kinds.KINDS[kind].default_metrics,
    paper_metric='',
    tables={'train': task_lib.Table(text=text)},
    **fields,
  )


# More tokens than a window holds, in place of the short texts of the code.
_LONG = 'a good movie and a dull film . ' * 9, 'the big dog was not here'
# A label that would end a line, or a table, of whatever it is written in.
_ODD = 'a "|`<b>\n\tb'
_TASKS = task_lib.TaskTable(
  (
    _task('classes', 'classification', ('text',), ('x', 'y', _ODD)),
    _task('pairs', 'classification', ('text', 'other'), ('x', 'y')),
    _task('scores', 'regression', ('a', 'b'), scale=(-1.5, 5.0)),
    _task('multilabel', 'multilabel', ('text',), ('joy', 'anger', 'fear')),
    _task('tagging', 'tagging', (0,), ('O', 'B-PER', 'I-PER', 'B-LOC')),
    _task('long', 'classification', ('text',), ('x', 'y', 'z'), windows='max'),
    _task('long_pairs', 'regression', ('a', 'b'), windows='mean', stride=3),
    _task('qa', 'qa', ('question', 'context')),
    _task('qa_or_none', 'qa', ('question', 'context'), unanswerable=True),
  )
)
_TOKENIZER = features.Tokenizer.from_vocab(demo.vocabulary(), lowercase=True)
_CONFIG = family.EncoderConfig(_TOKENIZER.vocab_size, 16, 2, 2, 32, 64)
_SEEDS = (0, 1, 2, 3)  # Of the parameters: not all predictions are alike.
_HEADS = ('sigmoid', 'linear', 'sigmoid', 'linear')  # Of regression, by seed.


_DECIDED = {
  'pairs': {'temperature': 1.7, 'threshold': 0.6},
  'multilabel': {'temperature': 0.5, 'threshold': 0.8},
}


def _tasks(seed):
  """The tasks with the head of a seed; the last reads pairs apart.

  Of seed 1 some have a temperature and a threshold.
  """
  tasks = (task.with_head(_HEADS[seed]) for task in _TASKS.tasks)
  if seed == 1:
    tasks = (
      dataclasses.replace(task, **_DECIDED.get(task.name, {})) for task in tasks
    )
  return task_lib.TaskTable(
    tuple(
      dataclasses.replace(task, is_bi_encoder=True)
      if seed == 3 and task.name in ('pairs', 'scores')
      else task
      for task in tasks
    )
  )


def _model(seed):
  pooling = 'mean' if seed >= 2 else 'cls'
  tasks = _tasks(seed)
  return heads.MultiTaskModel(
    dataclasses.replace(_CONFIG, pooling=pooling),
    len(tasks),
    tasks.num_outputs,
    tasks.token_heads,
    tasks.token_outputs,
    bi_encoder_heads=tasks.bi_encoder_heads,
  )


@functools.cache
def _params(seed):
  return models.draw_params(_model(seed), 0.3, seed)


def _facts(**fields):
  defaults = {
    'name': 'test', 'run': 'single-s0', 'variant': 'single', 'teachers': (),
    'encoder': 'random weights', 'note': '', 'max_length': 32,
    'record': {
      'versions': 'jax 0',
      'scores': {},
      'decisions': {
        name: {
          'calibration_error': 0.125,
          'calibrated_error': 0.0625,
          'wanted_threshold': 'f1',
          'default_score': 80.25,
          'threshold_score': None,
        }
        for name in _DECIDED
      },
    },
  }  # fmt: skip
  return card.Facts(**(defaults | fields))


def _export(path, seed=0):
  export.export(
    path,
    _model(seed).config,
    _TOKENIZER,
    _params(seed),
    _TASKS.index,
    _tasks(seed),
    _facts(),
  )


@pytest.fixture(scope='module')
def exports(tmp_path_factory):
  """One directory a seed; the heads of regression and the pooling differ."""
  path = tmp_path_factory.mktemp('exports')
  for seed in _SEEDS:
    _export(path / str(seed), seed)
  return path


def _windowed_logits(task, seed):
  """By our own model, of the texts of `_LONG`: a loop over their windows."""
  texts = _LONG[: len(task.tables['train'].text)]
  example = task_lib.Example('x', *(*texts, None)[:2], None)
  found = []
  for row in features.featurize([example], task, _TOKENIZER, 32):
    ids = row.input_ids.tolist()
    types = (np.arange(len(ids)) >= row.length_a).astype(int).tolist()
    found.append(_apply(task, seed, ids, types).slots[0, 0])
  assert len(found) > 2
  found = np.array(found)[:, : task.num_outputs]
  if task.windows == 'mean':
    return found.mean(0)
  return scipy.special.log_softmax(found, -1).max(0)


def _logits(task, seed, *texts):
  """By our own model, of one row: [outputs], or [tokens, outputs]."""
  first, *more = _TOKENIZER.encode(list(texts))
  ids = [_TOKENIZER.cls_id, *first, _TOKENIZER.sep_id]
  types = [0] * len(ids)
  for other in more:
    ids += [_TOKENIZER.cls_id] * _tasks(seed)[task.name].is_bi_encoder
    ids += [*other, _TOKENIZER.sep_id]
    types += [1] * (len(ids) - len(types))
  found = _apply(task, seed, ids, types)
  logits = found.tokens[0] if task.kind.per_token else found.slots[0, 0]
  return np.asarray(logits)[..., : task.num_outputs], len(first)


def _apply(task, seed, ids, types):
  """Outputs of our own model on one row."""
  batch = {
    'input_ids': np.array([ids]),
    'token_type_ids': np.array([types]),
    'positions': np.arange(len(ids))[None],
    'segment_ids': np.ones((1, len(ids)), np.int32),
    'cls_index': np.zeros((1, 1), np.int32),
    'task_id': np.array([[_TASKS.index[task.name]]]),
  }
  return models.apply(_model(seed), _params(seed), batch)


def _example_logits(task, seed, *texts):
  """Of texts, or where the task has windows, of those of `_LONG`."""
  if task.windows:
    return _windowed_logits(task, seed)
  return _logits(task, seed, *texts)[0]


def _expected(task, seed):
  """What the card's code is to print."""
  texts = ('a text', 'another one')[
    : len(_TASKS[task.name].tables['train'].text)
  ]
  decided = _DECIDED.get(task.name) if seed == 1 else None
  if task.kind.name == 'classification':
    logits = _example_logits(task, seed, *texts)
    if decided:
      probs = scipy.special.softmax(logits / decided['temperature'])
      label = task.labels[int(probs[1] > decided['threshold'])]
      return label, probs.tolist()
    return task.labels[logits.argmax()]
  if task.kind.name == 'multilabel':
    chosen = _logits(task, seed, *texts)[0] > 0
    if decided:
      logits = _logits(task, seed, *texts)[0] / decided['temperature']
      chosen = scipy.special.expit(logits) > decided['threshold']
    return str([x for x, is_one in zip(task.labels, chosen) if is_one])
  if task.kind.name == 'regression':
    head = _HEADS[seed]
    logits = _example_logits(task, seed, *texts)[None]
    return float(task.kind.with_head(head).predictions(task, logits)[0])
  if task.kind.name == 'tagging':
    logits, _ = _logits(task, seed, ' '.join(_WORDS))
    begins = np.cumsum([0] + [len(x) for x in _TOKENIZER.encode(_WORDS)]) + 1
    tags = [task.labels[logits[i].argmax()] for i in begins[:-1]]
    return '\n'.join(map(' '.join, zip(_WORDS, tags)))
  logits, length = _logits(task, seed, _QUESTION, _CONTEXT)
  begin, end = length + 2, len(logits) - 1
  best, place = max(
    (logits[i, 0] + logits[j, 1], (i, j))
    for i in range(begin, end)
    for j in range(i, min(end, i + 30))
  )
  if task.unanswerable and logits[0].sum() > best:
    return 'no answer'
  # The pieces of this text are words, marks and letters: one after the other.
  spans, at = [], 0
  for piece in _pieces(_CONTEXT):
    at = _CONTEXT.index(piece, at)
    spans.append((at, at + len(piece)))
    at += len(piece)
  first, last = place[0] - begin, place[1] - begin
  return _CONTEXT[spans[first][0] : spans[last][1]]


def _pieces(text):
  """Its pieces without the marks of those that go on."""
  (ids,) = _TOKENIZER.encode([text])
  names = demo.vocabulary()
  return [names[i].removeprefix('##') for i in ids]


@pytest.mark.parametrize('seed', _SEEDS)
@pytest.mark.parametrize('task', _TASKS.tasks, ids=_TASKS.names)
def test_the_code_prints_what_our_own_model_predicts(
  exports, task, seed, monkeypatch
):
  pytest.importorskip('torch')
  pytest.importorskip('transformers')
  directory = exports / str(seed) / task.name
  text = (directory / 'README.md').read_text()
  (code,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  monkeypatch.chdir(directory)
  if task.windows:
    for short, long in zip(("'a text'", "'another one'"), _LONG):
      code = code.replace(short, repr(long))
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    exec(compile(code, 'README.md', 'exec'), {})
  expected = _expected(task, seed)
  found = printed.getvalue().removesuffix('\n')
  if task.kind.has_scale:
    assert float(found) == pytest.approx(expected, abs=1e-4)
  elif isinstance(expected, tuple):
    label, probs = found.split(' ', 1)
    assert label == expected[0]
    assert json.loads(probs) == pytest.approx(expected[1], abs=1e-4)
    assert 'the expected calibration error is 12.5 percent, and 6.2' in text
    assert 'f1 is 80.2 at a probability of 1/2, and undefined with' in text
  else:
    assert found == expected


@pytest.mark.parametrize('seed', _SEEDS)
def test_the_code_of_all_tasks_gives_the_logits_of_each(
  exports, seed, monkeypatch
):
  pytest.importorskip('torch')
  pytest.importorskip('transformers')
  directory = exports / str(seed) / export.ALL
  text = (directory / 'README.md').read_text()
  (code,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  monkeypatch.chdir(directory)
  names = {}
  with contextlib.redirect_stdout(io.StringIO()):
    exec(compile(code, 'README.md', 'exec'), names)
  seen = set()
  for texts in (('a text',), ('a text', 'another one')):
    for name, logits in names['predict'](*texts).items():
      expected, _ = _logits(_tasks(seed)[name], seed, *texts)
      np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
      seen.add(name)
  assert seen == {*_TASKS.names}


def test_config_has_what_transformers_writes(exports, tmp_path):
  pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  for task in _TASKS.tasks:
    directory = exports / '0' / task.name
    ours = json.loads((directory / 'config.json').read_text())
    auto_class = getattr(transformers, f'AutoModel{task.kind.architecture}')
    model = auto_class.from_pretrained(directory)
    model.save_pretrained(tmp_path)
    theirs = json.loads((tmp_path / 'config.json').read_text())
    del theirs['transformers_version']
    assert {key: ours.get(key, 'absent') for key in theirs} == theirs


@pytest.mark.parametrize('name', [*_TASKS.names, export.ALL])
def test_config_has_what_readers_without_defaults_need(exports, name):
  """The fields that text-embeddings-inference has no default for."""
  config = json.loads((exports / '0' / name / 'config.json').read_text())
  assert config['pad_token_id'] == demo.vocabulary().index('[PAD]')
  assert config['initializer_range'] == 0.02
  assert config.keys() >= {
    'vocab_size', 'hidden_size', 'num_hidden_layers', 'num_attention_heads',
    'intermediate_size', 'hidden_act', 'hidden_dropout_prob',
    'max_position_embeddings', 'type_vocab_size', 'layer_norm_eps',
    'position_embedding_type', 'use_cache', 'classifier_dropout', 'model_type',
  }  # fmt: skip
