"""Shards, and every refusal of a file in one line."""

import json
from pathlib import Path
import shutil
import subprocess

import numpy as np
import pytest

from bam_jax import errors
from bam_jax.data import features
from bam_jax.modeling import family
from bam_jax.modeling import huggingface
from bam_jax.modeling import weight_files

WEIGHTS = Path(__file__).parent / 'golden' / 'deep' / 'model.safetensors'
INDEX = 'model.safetensors.index.json'
SHARDS = [f'model-0000{i}-of-00002.safetensors' for i in (1, 2)]


def _fails(call, *parts):
  with pytest.raises(errors.UserError) as caught:
    call()
  message = str(caught.value)
  assert '\n' not in message
  for part in parts:
    assert part in message


def _write_index(path, index):
  (path / INDEX).write_text(json.dumps(index))


def test_one_file_goes_before_an_index(tmp_path):
  for name in (*SHARDS, 'model.safetensors'):
    shutil.copy(WEIGHTS, tmp_path / name)
  _write_index(tmp_path, {'weight_map': dict(zip('ab', SHARDS, strict=True))})
  found = weight_files.find_files(tmp_path)
  assert found == [tmp_path / 'model.safetensors']
  found[0].unlink()
  found = weight_files.find_files(tmp_path)
  assert found == [tmp_path / name for name in SHARDS]


@pytest.mark.parametrize(
  'file',
  ['model-9.safetensors', '../model.safetensors', str(WEIGHTS), 3, 'x' * 300],
)
def test_shard_that_is_not_in_the_directory(tmp_path, file):
  directory = tmp_path / 'weights'
  directory.mkdir()
  for path in (directory / SHARDS[0], tmp_path / 'model.safetensors'):
    shutil.copy(WEIGHTS, path)
  _write_index(directory, {'weight_map': {'a': SHARDS[0], 'b': file}})
  _fails(lambda: weight_files.find_files(directory), INDEX, str(file))


@pytest.mark.parametrize('index', [{}, {'weight_map': {}}, {'weight_map': 1}])
def test_index_without_a_map(tmp_path, index):
  _write_index(tmp_path, index)
  _fails(lambda: weight_files.find_files(tmp_path), INDEX, 'weight_map')


@pytest.mark.parametrize(
  'pickle', ['pytorch_model.bin', 'pytorch_model-00002-of-00003.bin']
)
def test_pickle_is_never_loaded(tmp_path, pickle):
  folder = tmp_path / ('x' * 200)  # The command for it is told whole.
  folder.mkdir()
  (folder / pickle).write_bytes(b'')
  _fails(
    lambda: weight_files.find_files(folder),
    f'{folder}: holds {pickle} and no model.safetensors',
    'pickles are not loaded',
    f'from_pretrained("{folder}")',
    't.AutoModel)',  # if config.json names no class
  )


def test_no_weights_at_all(tmp_path):
  _fails(
    lambda: weight_files.find_files(tmp_path),
    'holds no model.safetensors, only nothing;',
  )
  _fails(lambda: weight_files.find_files(tmp_path / 'absent'), 'only nothing;')
  for name in 'hgfedcba':
    (tmp_path / name).touch()
  _fails(lambda: weight_files.find_files(tmp_path), 'only a, b, c, d, e, ...;')


# The oracles are the tensors that torch and transformers held.
@pytest.mark.parametrize('architecture', ['BertModel', 'BertForMaskedLM'])
def test_the_printed_conversion(tmp_path, architecture):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  source = tmp_path / "it's a model"
  config = transformers.BertConfig(
    vocab_size=9,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
  )
  model = getattr(transformers, architecture)(config)
  model.save_pretrained(source)
  (source / 'model.safetensors').unlink()
  torch.save(model.state_dict(), source / 'pytorch_model.bin')
  words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'b', '##c', 'd']
  (source / 'vocab.txt').write_text('\n'.join(words) + '\n')
  with pytest.raises(errors.UserError) as caught:
    weight_files.find_files(source)
  command = str(caught.value).split('convert it: ')[1].split(', then set ')[0]
  subprocess.run(command, shell=True, check=True, cwd=tmp_path)
  converted = Path(f'{source}-safetensors')
  assert str(caught.value).endswith(f'config.model.init={converted}')
  params = huggingface.load_params(
    converted, family.EncoderConfig(**huggingface.load_config(converted))
  )
  embeddings = params['encoder']['embeddings']['word']['embedding']
  expected = model.state_dict()
  prefix = '' if architecture == 'BertModel' else 'bert.'
  np.testing.assert_array_equal(
    embeddings, expected[f'{prefix}embeddings.word_embeddings.weight'].numpy()
  )
  # A pooler that was not there would be random.
  assert ('pooler' in params) == ('pooler.dense.weight' in expected)
  tokenizer = features.Tokenizer.from_dir(converted)
  assert tokenizer.encode(['a bc d'])[0].tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize(
  'content',
  [b'', b'\xff' * 8 + b'{}', WEIGHTS.read_bytes()[:-100]],
  ids=['empty', 'huge header', 'truncated'],
)
def test_damaged_weights(tmp_path, content):
  file = tmp_path / 'model.safetensors'
  file.write_bytes(content)
  _fails(
    lambda: weight_files.tensor_names(file), str(file), 'damaged safetensors'
  )


@pytest.mark.parametrize('text', [b'{', b'[]', b'\xff{}', None])
def test_broken_json(tmp_path, text):
  file = tmp_path / 'config.json'
  if text is not None:
    file.write_bytes(text)
  _fails(lambda: weight_files.read_json(file), str(file))
