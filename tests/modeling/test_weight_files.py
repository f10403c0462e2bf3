"""Shards, and every refusal of a file in one line."""

import json
from pathlib import Path
import shutil

import pytest

from bam_jax import errors
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


def test_pickle_is_never_loaded(tmp_path):
  (tmp_path / 'pytorch_model.bin').write_bytes(b'')
  _fails(
    lambda: weight_files.find_files(tmp_path),
    'no pickle is loaded',
    f"from_pretrained('{tmp_path}')",
  )


def test_no_weights_at_all(tmp_path):
  _fails(
    lambda: weight_files.find_files(tmp_path), 'holds no model.safetensors'
  )


@pytest.mark.parametrize(
  'content',
  [b'', b'\xff' * 8 + b'{}', WEIGHTS.read_bytes()[:-100]],
  ids=['empty', 'huge header', 'truncated'],
)
def test_damaged_weights(tmp_path, content):
  file = tmp_path / 'model.safetensors'
  file.write_bytes(content)
  _fails(lambda: weight_files.tensor_names(file), str(file), 'no sound')


@pytest.mark.parametrize('text', [b'{', b'[]', b'\xff{}', None])
def test_broken_json(tmp_path, text):
  file = tmp_path / 'config.json'
  if text is not None:
    file.write_bytes(text)
  _fails(lambda: weight_files.read_json(file), str(file))
