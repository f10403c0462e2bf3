"""Exported directories: by torch where it is installed, and by arithmetic."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
import transformers

from bam_jax.data import features
from bam_jax.inference import card
from bam_jax.inference import export
from bam_jax.modeling import family
from bam_jax.modeling import heads
from bam_jax.modeling import huggingface
from bam_jax.tasks import demo
from bam_jax.tasks import glue
from bam_jax.tasks import task as task_lib
from tests.modeling import models

TASKS = task_lib.TaskTable(
  (glue.TASKS['mnli'], glue.TASKS['stsb'], glue.TASKS['cola'])
)
TOKENIZER = features.Tokenizer.from_vocab(demo.vocabulary(), lowercase=True)
CONFIG = family.EncoderConfig(TOKENIZER.vocab_size, 16, 2, 2, 32, 40)
FACTS = card.Facts(
  name='test',
  run='single_to_multi-s0',
  variant='single_to_multi',
  teachers=('single-s0-mnli', 'single-s0-stsb'),
  encoder='random weights',
  note='A note.',
  max_length=32,
  record={
    'versions': 'jax 0',
    'scores': {'stsb': {'dev': {'spearman': 81.25}}},
  },
)


def _model():
  return heads.MultiTaskModel(CONFIG, len(TASKS), TASKS.num_outputs)


@pytest.fixture(scope='module')
def params():
  return models.draw_params(_model(), 0.05)


@pytest.fixture(scope='module')
def directory(params, tmp_path_factory):
  path = tmp_path_factory.mktemp('exports')
  numbers = {'mnli': 0, 'stsb': 1}
  export.export(path, CONFIG, TOKENIZER, params, numbers, TASKS, FACTS)
  return path


def _example():
  """Ids, types and mask of two rows, the second one shorter."""
  rng = np.random.default_rng(1)
  ids = rng.integers(5, CONFIG.vocab_size, (2, 9))
  mask = np.array([[1] * 9, [1] * 6 + [0] * 3])
  types = np.array([[0] * 4 + [1] * 5, [0] * 3 + [1] * 3 + [0] * 3])
  return ids * mask, types, mask


def _logits(params, task):
  """By the model itself, [2, outputs]."""
  ids, types, mask = _example()
  zeros = np.zeros((2, 1), np.int32)
  batch = {
    'input_ids': ids,
    'token_type_ids': types,
    'positions': np.tile(np.arange(9), (2, 1)),
    'segment_ids': mask,
    'cls_index': zeros,
    'task_id': zeros + TASKS.index[task],
  }
  logits = models.apply(_model(), params, batch)
  return logits.slots[:, 0, : TASKS[task].num_outputs]


def test_only_what_was_asked_for_is_written(directory):
  assert sorted(path.name for path in directory.iterdir()) == [
    'all', 'mnli', 'stsb',
  ]  # fmt: skip
  for name in ('mnli', 'stsb', 'all'):
    files = {path.name for path in (directory / name).iterdir()}
    assert files - {'tasks.json'} == {
      'README.md', 'config.json', 'model.safetensors', 'tokenizer.json',
      'tokenizer_config.json', 'vocab.txt',
    }  # fmt: skip


@pytest.mark.parametrize('task', ['mnli', 'stsb'])
def test_torch_gives_the_same_logits(directory, params, task):
  torch = pytest.importorskip('torch')

  model, told = transformers.AutoModelForSequenceClassification.from_pretrained(
    directory / task, output_loading_info=True
  )
  # Every tensor is used, and none is missing.
  assert not any(told[key] for key in ('missing_keys', 'unexpected_keys'))
  assert type(model).__name__ == 'BertForSequenceClassification'
  ids, types, mask = (torch.tensor(x) for x in _example())
  with torch.no_grad():
    found = model.eval()(
      input_ids=ids, token_type_ids=types, attention_mask=mask
    ).logits.numpy()
  np.testing.assert_allclose(found, _logits(params, task), rtol=0, atol=1e-5)
  tokenizer = transformers.AutoTokenizer.from_pretrained(directory / task)
  ours = TOKENIZER.encode(['the cat', 'a dog'])
  assert tokenizer('the cat', 'a dog')['input_ids'] == [
    TOKENIZER.cls_id, *ours[0], TOKENIZER.sep_id, *ours[1], TOKENIZER.sep_id,
  ]  # fmt: skip


@pytest.mark.parametrize('name', ['mnli', 'all'])
def test_encoder_and_pooler_come_back_bit_equal(directory, params, name):
  sizes = huggingface.load_config(directory / name)
  assert family.EncoderConfig(**sizes) == CONFIG
  back = huggingface.load_params(directory / name, CONFIG)
  wanted = {key: params[key] for key in ('encoder', 'pooler')}
  jax.tree.map(np.testing.assert_array_equal, back, wanted)


def test_heads_are_those_of_the_tasks(directory, params):
  """Oracle: the head's product by hand, of a vector of one's own."""
  vector = np.random.default_rng(2).normal(size=16).astype(np.float32)
  both = safetensors.numpy.load_file(directory / 'all' / 'model.safetensors')
  for task, number, outputs in (('mnli', 0, 3), ('stsb', 1, 1)):
    own = safetensors.numpy.load_file(directory / task / 'model.safetensors')
    expected = [
      sum(vector * params['heads']['kernel'][number, :, i])
      + params['heads']['bias'][number, i]
      for i in range(outputs)
    ]
    for weight, bias in (
      (own['classifier.weight'], own['classifier.bias']),
      (both[f'heads.{task}.weight'], both[f'heads.{task}.bias']),
    ):
      np.testing.assert_allclose(weight @ vector + bias, expected, rtol=1e-5)


def test_label_names_travel(directory):
  config = json.loads((directory / 'mnli' / 'config.json').read_text())
  labels = glue.TASKS['mnli'].labels
  assert [config['id2label'][str(i)] for i in range(3)] == list(labels)
  assert config['label2id'] == {label: i for i, label in enumerate(labels)}
  score = json.loads((directory / 'stsb' / 'config.json').read_text())
  assert score['problem_type'] == 'regression'
  assert len(score['id2label']) == 1
  told = json.loads((directory / 'all' / 'tasks.json').read_text())
  assert told['mnli']['labels'] == list(labels)
  assert told['stsb']['scale'] == [0.0, 5.0]
  assert told['stsb']['regression_head'] == 'sigmoid'


def test_the_tokenizer_gives_the_ids_of_training(directory):
  read = tokenizers.Tokenizer.from_file(
    str(directory / 'stsb' / 'tokenizer.json')
  )
  (ours,) = TOKENIZER.encode(['The cat sat'])
  assert read.encode('The cat sat').ids == [
    TOKENIZER.cls_id, *ours, TOKENIZER.sep_id,
  ]  # fmt: skip


def test_the_card_cuts_texts_as_training_did(directory):
  """Oracle: as many ids as an example had, [CLS] and [SEP] among them."""
  tokenizer = transformers.AutoTokenizer.from_pretrained(directory / 'stsb')
  (ours,) = TOKENIZER.encode(['The cat sat ' * 20])
  found = tokenizer('The cat sat ' * 20, truncation=True)['input_ids']
  kept = ours[: FACTS.max_length - 2]
  assert found == [TOKENIZER.cls_id, *kept, TOKENIZER.sep_id]
  pair = tokenizer('The cat ' * 20, 'sat ' * 20, truncation=True)['input_ids']
  assert len(pair) == FACTS.max_length


def test_the_card_says_what_a_reader_must_know(directory):
  text = (directory / 'stsb' / 'README.md').read_text()
  for said in (
    'with the teachers single-s0-mnli, single-s0-stsb',
    'a score from 0 to 5: 0 + 5 · sigmoid(logit)',
    "tokenizer('a text', 'another one', truncation=True, return_tensors='pt')",
    '| stsb | dev | spearman | 81.2 |',
    'A note.',
    'at most 32 tokens',
  ):
    assert said in text
  assert text.startswith('---\nlibrary_name: transformers\n')


def test_an_export_replaces_an_older_one(params, tmp_path):
  (tmp_path / 'stsb').mkdir()
  (tmp_path / 'stsb' / 'left_over').touch()
  export.export(tmp_path, CONFIG, TOKENIZER, params, {'stsb': 1}, TASKS, FACTS)
  assert not (tmp_path / 'stsb' / 'left_over').exists()
  # One task alone has no directory of all.
  assert [path.name for path in tmp_path.iterdir()] == ['stsb']
