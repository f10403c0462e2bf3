"""Rows without labels: declared, read, and their loss in a mixed batch."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.core import losses
from bam_jax.core import packing as packing_lib
from bam_jax.core import sampling
from bam_jax.data import batches
from bam_jax.data import registry
from bam_jax.data import sources
from bam_jax.data import targets
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib
from tests.data import test_batches as plain

# `score` and `two` have some, `three` has none.
_MORE = (
  plain.FakeColumns('score', 20, 4, 0, 30_000),
  plain.FakeColumns('two', 25, 5, 2, 40_000),
  None,
)
_RANDOM = np.random.default_rng(6)
_TEACHERS = (
  _RANDOM.random((50, 1), np.float32),
  _RANDOM.dirichlet((1, 1), 75).astype(np.float32),
  _RANDOM.dirichlet((1, 1, 1), 40).astype(np.float32),
)
_ROWS = [50, 75, 40]


@pytest.fixture(autouse=True)
def no_labels(monkeypatch):
  """As the features of such rows have them."""
  for columns in _MORE[:2]:
    nothing = np.full(len(columns), np.nan, np.float32)
    monkeypatch.setitem(columns._fixed, 'label', nothing)


def _sampler() -> sampling.ProportionalSampler:
  return sampling.ProportionalSampler(_ROWS, _ROWS, 0.75, 20, 7)


def _batches(teachers=_TEACHERS) -> batches.TrainBatches:
  return plain.make_batches(
    sampler=_sampler(), teachers=teachers, without_labels=_MORE
  )


def _examples(step: int):
  """Columns, row, head, teacher's prediction, and whether it has a label."""
  for task, row in zip(*_sampler()(step)):
    columns, labelled = plain.FEATURES[task], len(plain.FEATURES[task])
    teacher = _TEACHERS[task][row]
    if row < labelled:
      yield columns, row, plain.HEADS[task], teacher, True
    else:
      yield _MORE[task], row - labelled, plain.HEADS[task], teacher, False


def _places(step: int) -> packing_lib.Packing:
  lengths = [len(c.tokens(row)) for c, row, *_ in _examples(step)]
  return packing_lib.pack(np.array(lengths), 32, 4)


def test_batches_hold_both_kinds_of_rows():
  seen = {True: set(), False: set()}
  for step in range(10):
    batch, packed = _batches()(step), _places(step)
    for (columns, row, head, _, has_label), r, s in zip(
      _examples(step), packed.row, packed.slot
    ):
      inside = batch['segment_ids'][r] == s + 1
      assert batch['input_ids'][r, inside].tolist() == columns.tokens(row)
      assert (
        inside.sum() - batch['token_type_ids'][r, inside].sum()
        == (columns.fixed('length_a')[row])
      )
      assert batch['task_id'][r, s] == head
      seen[has_label].add(columns.uids[row])
  assert len(seen[True]) > 80
  assert len(seen[False]) > 30


@pytest.mark.parametrize('gold_weight', [0.0, 0.3, 1.0])
def test_the_loss_of_a_mixed_batch(gold_weight):
  """Oracle: a loop over the examples in float64."""
  step, tasks = 3, plain.TASKS
  batch, packed = _batches()(step), _places(step)
  shape = (*batch['weight'].shape, tasks.num_outputs)
  logits = np.random.default_rng(8).normal(size=shape).astype(np.float32)
  expected, kinds = 0.0, set()
  for (columns, row, head, teacher, has_label), r, s in zip(
    _examples(step), packed.row, packed.slot
  ):
    task = tasks.tasks[head]
    x = logits[r, s, : task.num_outputs].astype(np.float64)
    target = teacher.astype(np.float64)
    if has_label:
      label = columns.fixed('label')[row]
      gold = np.zeros(task.num_outputs)
      gold[0 if task.kind.has_scale else int(label)] = 1
      if task.kind.has_scale:
        gold[0] = label
      target = gold_weight * gold + (1 - gold_weight) * target
    kinds.add((head, has_label))
    if task.kind.has_scale:
      expected += (1 / (1 + np.exp(-x[0])) - target[0]) ** 2
    else:
      expected -= target @ (x - np.log(np.exp(x).sum()))
  assert len(kinds) == 5
  loss, by_task = losses.multitask_loss(
    jnp.asarray(logits), batch, tasks.class_mask, tasks.kinds, gold_weight
  )
  assert float(loss) == pytest.approx(expected, rel=1e-6)
  assert float(by_task['count'].sum()) == 20


@pytest.mark.parametrize(
  ('teachers', 'message'),
  [
    ((None, *_TEACHERS[1:]), 'score: no teacher for rows without labels'),
    ((_TEACHERS[0][:30], *_TEACHERS[1:]), r'score: .* \(30, 1\), .* \(50, 1\)'),
  ],
  ids=['none', 'of-others'],
)
def test_they_need_a_teacher(teachers, message):
  with pytest.raises(ValueError, match=message):
    _batches(teachers)


def test_several_labels_a_row():
  """Each gold target is the row's own labels, or its teacher's prediction."""
  task = dataclasses.replace(
    plain.make_task('many', ('a', 'b')), kind=kinds.KINDS['multilabel']
  )
  columns = [plain.FakeColumns('many', rows, 9, 2, 1) for rows in (8, 5)]
  labels = _RANDOM.integers(0, 2, (8, 2)).astype(np.float32)
  for each, label in zip(columns, (labels, np.full((5, 2), np.nan))):
    each._fixed['label'] = label
  teacher = _RANDOM.random((13, 2), np.float32)
  make_targets = targets.Targets(
    [task], columns[:1], columns[1:], [teacher], 3, 0
  )
  numbers = np.array([12, 0, 7, 8])
  ones = np.ones(4, int)
  of_example, of_token = make_targets(ones - 1, numbers, ones)
  gold, taught = of_example['gold'], of_example['teacher']
  assert not of_token
  expected = np.concatenate([labels, teacher[8:]])[numbers]
  np.testing.assert_array_equal(gold[:, :2], expected)
  np.testing.assert_array_equal(taught[:, :2], teacher[numbers])
  assert not gold[:, 2].any()
  assert not taught[:, 2].any()


def _config(**changes) -> config_lib.Config:
  config = config_lib.default_config()
  config.custom_tasks.mood = config_lib.custom_task(
    labels=('down', 'up'),
    train='mood.tsv',
    dev='mood.tsv',
    text=('title', 'body'),
  )
  config.custom_tasks.words = config_lib.custom_task(
    kind='tagging',
    format='conll',
    labels=('O', 'B-X'),
    text=('0',),
    label='1',
    train='words.txt',
    dev='words.txt',
  )
  config.tasks = ('mood', 'stsb', 'rte', 'words')
  config.update_from_flattened_dict({
    'data.dir': 'glue',
    'data.unlabelled': ('mood=more.jsonl',),
    **changes,
  })  # fmt: skip
  return config_lib.from_config_dict(config)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'data.unlabelled': ('more.jsonl',)},
      r"data\.unlabelled: 'more\.jsonl' is not TASK=FILE with a \.tsv",
    ),
    ({'data.unlabelled': ('mood=more.txt',)}, 'is not TASK=FILE'),
    (
      {'data.unlabelled': ('moood=more.tsv',)},
      r"'moood' is none of mood, stsb, rte, words",
    ),
    (
      {'data.unlabelled': ('mood=a.tsv', 'mood=b.tsv')},
      r"'mood=b\.tsv': mood already has a\.tsv; join the two files",
    ),
    ({'data.unlabelled': ('words=a.tsv',)}, r"'words' is tagging, which"),
    (
      {'variants': ('single', 'multi')},
      r'none of the variants single, multi learns from the file of mood',
    ),
    ({'distill.unlabelled': False}, 'learns from the file of mood; add a'),
  ],
  ids=['no-task', 'format', 'task', 'twice', 'tokens', 'untaught', 'off'],
)
def test_a_wrong_declaration_is_an_error(changes, message):
  with pytest.raises(errors.UserError, match=message) as error:
    config = _config(**changes)
    registry.resolve(config)
    config_lib.check_students(config)
  assert '\n' not in str(error.value)


def test_a_teacher_that_is_taught_counts_as_a_student():
  config = config_lib.default_config()
  config.tasks = ('rte',)
  config.data.unlabelled = ('rte=more.tsv',)
  config.custom_variants.again = config_lib.custom_variant(
    'single_to_single',
    teacher='single_to_single',
    changes={'distill': {'unlabelled': False}},
  )
  config.variants = ('again',)
  config_lib.check_students(config_lib.from_config_dict(config))


def _read(folder, task, file, text, **changes) -> list[task_lib.Example]:
  (folder / file).write_text(text)
  changes = {
    'data.dir': str(folder),
    'data.unlabelled': (f'{task}={file}',),
    **changes,
  }
  config = _config(**changes)
  table = registry.resolve(config)[task]
  return list(sources.read(table, task_lib.UNLABELLED, config.data))


@pytest.mark.parametrize(
  ('task', 'file', 'rows'),
  [
    ('mood', 'x.tsv', 'n\tbody\ttitle\n1\tb\ta\n\n2\td\tc\n'),
    ('mood', 'x.tsv', 'text\ttext_pair\na\tb\nc\td\n'),
    ('mood', 'x.jsonl', '{"title": "a", "body": "b"}\n'),
    ('stsb', 'x.tsv', 'text\ttext_pair\na\tb\n'),
    ('rte', 'x.jsonl', '{"text_pair": "b", "text": "a", "label": "x"}\n'),
  ],
  ids=['own', 'common', 'jsonl', 'numbered', 'labelled'],
)
def test_their_texts_stand_under_either_name(tmp_path, task, file, rows):
  found = _read(tmp_path, task, file, rows)
  assert found[0] == task_lib.Example(f'{task}/unlabelled/0', 'a', 'b', None)
  if len(found) > 1:
    last = task_lib.Example(f'{task}/unlabelled/1', 'c', 'd', None)
    assert found[1:] == [last]


def test_files_without_a_header_are_all_alike(tmp_path):
  """An own task's numbered columns hold in its file without labels too."""
  config = config_lib.default_config()
  config.custom_tasks.mood = config_lib.custom_task(
    labels=('down', 'up'),
    header=False,
    text=('1',),
    label='0',
    train='mood.tsv',
    dev='mood.tsv',
  )
  config.tasks = ('mood',)
  config.data.dir = str(tmp_path)
  config.data.unlabelled = ('mood=x.tsv',)
  (tmp_path / 'x.tsv').write_text('up\ta\ndown\tb\n')
  checked = config_lib.from_config_dict(config)
  task = registry.resolve(checked)['mood']
  found = sources.read(task, task_lib.UNLABELLED, checked.data)
  assert [example.text_a for example in found] == ['a', 'b']


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    ('{"title": "a"}\n', r"x\.jsonl:1: no field 'body'; the object has title"),
    (
      '{"text": "a", "text_pair": "b"}\n{"text": "c", "text_pair": " "}\n',
      r'x\.jsonl:2: the text is empty; remove the row',
    ),
    ('{"text": 1, "text_pair": "b"}\n', r"x\.jsonl:1: field 'text' is no"),
    ('{"text": "a"\n', r'x\.jsonl:1: not JSON'),
    ('', r'x\.jsonl: has no usable row; fix config\.data\.dir or config'),
  ],
  ids=['field', 'empty-text', 'type', 'json', 'empty'],
)
def test_a_row_that_cannot_be_used_is_an_error(tmp_path, rows, message):
  with pytest.raises(errors.UserError, match=message) as error:
    _read(tmp_path, 'mood', 'x.jsonl', rows)
  assert '\n' not in str(error.value)


def test_a_missing_file_is_told_of(tmp_path):
  config = _config(**{'data.dir': str(tmp_path)})
  task = registry.resolve(config)['mood']
  with pytest.raises(
    errors.UserError,
    match=r'more\.jsonl: No such file .* config\.data\.unlabelled$',
  ):
    next(sources.read(task, task_lib.UNLABELLED, config.data))
