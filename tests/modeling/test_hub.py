"""Models by their name on the hub; the hub is a server on this machine."""

import io
import json
import logging
from pathlib import Path
import shutil
import socket

import huggingface_hub
from huggingface_hub import constants
import pytest

from bam_jax import command_line
from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.modeling import huggingface
from bam_jax.modeling import pretrained
from tests.modeling import hub_server

_GOLDEN = Path(__file__).parent / 'golden' / 'deep'
_NAME = 'team/model'


@pytest.fixture
def model(tmp_path) -> Path:
  """What the hub holds under the one name that it knows."""
  directory = tmp_path / 'model'
  directory.mkdir()
  for name in ('config.json', 'model.safetensors'):
    shutil.copy(_GOLDEN / name, directory)
  size = json.loads((directory / 'config.json').read_text())['vocab_size']
  words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]']
  words += [f'w{i}' for i in range(size - len(words))]
  (directory / 'vocab.txt').write_text('\n'.join(words) + '\n')
  (directory / 'README.md').write_text('of no use')
  return directory


@pytest.fixture
def hub(model, tmp_path, monkeypatch):
  """The server; what the environment would say is read at the import."""
  with hub_server.HubServer({_NAME: model}) as server:
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    _lead_to(server.endpoint, monkeypatch)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True)
    yield server
  huggingface_hub.close_session()


def _lead_to(endpoint: str, monkeypatch) -> None:
  files = f'{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}'
  monkeypatch.setattr(constants, 'ENDPOINT', endpoint)
  monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', files)


def _config(name: str = _NAME, **changes: object) -> config_lib.Config:
  config = config_lib.default_config()
  config.tasks = ('demo_sentiment',)
  config.data.max_length = 8
  config.model.init = name
  config.update_from_flattened_dict(changes)
  return config_lib.from_config_dict(config)


def _refusal(name: str = _NAME) -> str:
  with pytest.raises(errors.UserError) as caught:
    pretrained.load_encoder(_config(name))
  return str(caught.value)


def test_a_model_is_fetched_once(hub, model):
  encoder = pretrained.load_encoder(_config())
  assert encoder.digest == huggingface.weights_digest(model)
  assert sorted(hub.asked) == ['config.json', 'model.safetensors', 'vocab.txt']
  # From the cache, where the hub is gone.
  hub.status = 500
  assert pretrained.load_encoder(_config()).digest == encoder.digest
  assert len(hub.asked) == 3


def test_the_pooling_is_fetched_with_the_weights(hub, model):
  (model / 'modules.json').write_text('[{"path": "p", "type": "a.Pooling"}]')
  (model / 'p').mkdir()
  (model / 'p' / 'config.json').write_text('{"pooling_mode": "mean"}')
  encoder = pretrained.load_encoder(_config(**{'model.pooling': 'auto'}))
  assert encoder.config.pooling == 'mean'


def test_another_family_is_refused_before_its_weights_are_fetched(hub, model):
  (model / 'config.json').write_text(json.dumps({'model_type': 'gpt2'}))
  assert "model_type is 'gpt2'" in _refusal()
  assert hub.asked == ['config.json']


@pytest.mark.parametrize(
  ('status', 'name', 'cause', 'remedy'),
  [
    (
      200,
      'team/absent',
      '401 Client Error',
      'correct the name, or, if the mod',
    ),
    (401, _NAME, '401 Unauthorized', 'set HF_TOKEN'),
    (403, _NAME, '403 Forbidden', 'set HF_TOKEN'),
    (404, _NAME, '404 Not Found', 'correct the name'),
    (429, _NAME, '429 Too Many Requests', 'wait and run the command again'),
    (500, _NAME, '500 Internal Server Error', f'`hf download {_NAME} --local'),
  ],
  ids=['absent', '401', '403', '404', '429', '500'],
)
def test_the_cause_of_a_refusal(hub, status, name, cause, remedy):
  hub.status = status
  message = _refusal(name)
  assert message.startswith(f'config.model.init={name!r}: ')
  assert cause in message
  assert remedy in message.partition('; ')[2]


def test_no_connection(hub, monkeypatch):
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    endpoint = f'http://127.0.0.1:{taken.getsockname()[1]}'
    # Bound and not listening: it refuses, and nobody else can get it.
    _lead_to(endpoint, monkeypatch)
    message = _refusal()
  assert '(' in message
  assert 'Connection refused' in message
  assert f'`hf download {_NAME} --local-dir DIR`' in message


@pytest.mark.parametrize(
  'pickles',
  [
    ('pytorch_model.bin',),
    ('pytorch_model-00001-of-00002.bin', 'pytorch_model-00002-of-00002.bin'),
  ],
  ids=['one', 'shards'],
)
def test_pickles_alone(hub, model, pickles):
  (model / 'model.safetensors').unlink()
  for name in pickles:
    (model / name).write_bytes(b'')
  message = _refusal()
  assert f"config.model.init='{_NAME}': holds {pickles[0]} and no" in message
  assert f'AutoTokenizer.from_pretrained("{_NAME}")' in message
  assert message.endswith('then set config.model.init=model-safetensors')
  assert not any(name.endswith('.bin') for name in hub.asked)


def test_no_weights_at_all(hub, model):
  (model / 'model.safetensors').rename(model / 'tf_model.h5')
  assert (
    'holds no model.safetensors, only README.md, config.json, tf_model.h5,'
    ' vocab.txt;' in _refusal()
  )


def test_requests_are_not_logged(hub, restored_logs):
  handler = logging.StreamHandler(stream := io.StringIO())
  logging.getLogger().handlers[:] = [handler]
  command_line.configure_logging()
  pretrained.load_encoder(_config())
  logging.info('of this package')
  assert stream.getvalue() == 'of this package\n'
