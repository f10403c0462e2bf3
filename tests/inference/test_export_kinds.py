"""Exported heads of the kinds that GLUE lacks: by torch, by their tensors."""

import numpy as np
import pytest
import safetensors.numpy

from bam_jax.data import features
from bam_jax.inference import card
from bam_jax.inference import export
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.tasks import demo
from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib
from tests.modeling import models


def _task(kind, text, labels=()):
  return task_lib.Task(
    name=kind,
    kind=kinds.KINDS[kind],
    labels=labels,
    metrics=kinds.KINDS[kind].default_metrics,
    paper_metric='',
    tables={'train': task_lib.Table(text=text)},
  )


TASKS = task_lib.TaskTable(
  (
    _task('multilabel', ('text',), ('joy', 'anger', 'fear')),
    _task('tagging', (0,), ('O', 'B-PER', 'I-PER', 'B-LOC')),
    _task('qa', ('question', 'context')),
  )
)
TOKENIZER = features.Tokenizer.from_vocab(demo.vocabulary(), lowercase=True)
CONFIG = family.EncoderConfig(TOKENIZER.vocab_size, 16, 2, 2, 32, 40)
MODEL = heads.MultiTaskModel(
  CONFIG,
  len(TASKS),
  TASKS.num_outputs,
  TASKS.token_heads,
  TASKS.token_outputs,
)
FACTS = card.Facts(
  name='test',
  run='single_to_multi-s0',
  variant='single_to_multi',
  teachers=(),
  encoder='random weights',
  note='',
  max_length=32,
  record={'versions': 'jax 0', 'scores': {}},
)


@pytest.fixture(scope='module')
def params():
  return models.draw_params(MODEL, 0.05)


@pytest.fixture(scope='module')
def directory(params, tmp_path_factory):
  path = tmp_path_factory.mktemp('exports')
  export.export(path, CONFIG, TOKENIZER, params, TASKS.index, TASKS, FACTS)
  return path


def _example():
  """Ids, types and mask of a row."""
  ids = np.random.default_rng(1).integers(5, CONFIG.vocab_size, (1, 9))
  return ids, np.array([[0] * 4 + [1] * 5]), np.ones((1, 9), np.int64)


def _logits(params, task):
  """By the model itself: [outputs], or [tokens, outputs]."""
  ids, types, mask = _example()
  batch = {
    'input_ids': ids,
    'token_type_ids': types,
    'positions': np.arange(9)[None],
    'segment_ids': mask,
    'cls_index': np.zeros((1, 1), np.int32),
    'task_id': np.array([[TASKS.index[task.name]]]),
  }
  logits = models.apply(MODEL, params, batch)
  found = logits.tokens[0] if task.kind.per_token else logits.slots[0, 0]
  return np.asarray(found)[..., : task.num_outputs]


@pytest.mark.parametrize('task', TASKS.tasks, ids=TASKS.names)
def test_torch_gives_the_same_logits(directory, params, task):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  auto_class = getattr(transformers, f'AutoModel{task.kind.architecture}')
  model, told = auto_class.from_pretrained(
    directory / task.name, output_loading_info=True
  )
  # Every tensor is used, and none is missing.
  assert not any(told[key] for key in ('missing_keys', 'unexpected_keys'))
  assert type(model).__name__ == 'Bert' + task.kind.architecture
  ids, types, mask = (torch.tensor(x) for x in _example())
  with torch.no_grad():
    found = model.eval()(ids, token_type_ids=types, attention_mask=mask)
  if task.kind.name == 'qa':
    logits = torch.stack([found.start_logits[0], found.end_logits[0]], -1)
  else:
    logits = found.logits[0]
  np.testing.assert_allclose(logits, _logits(params, task), atol=1e-4)
  if task.labels:
    assert tuple(model.config.id2label.values()) == task.labels


@pytest.mark.parametrize(
  ('name', 'layer', 'is_pooled'),
  [
    ('multilabel', 'classifier', True),
    ('tagging', 'classifier', False),
    ('qa', 'qa_outputs', False),
  ],
)
def test_tensors_of_a_head(directory, params, name, layer, is_pooled):
  file = directory / name / 'model.safetensors'
  tensors = safetensors.numpy.load_file(file)
  head, width = TASKS.index[name], TASKS[name].num_outputs
  np.testing.assert_array_equal(
    tensors[f'{layer}.weight'], params['heads']['kernel'][head, :, :width].T
  )
  np.testing.assert_array_equal(
    tensors[f'{layer}.bias'], params['heads']['bias'][head, :width]
  )
  assert any('pooler' in key for key in tensors) == is_pooled
