"""Every setting of a plan on this backend: it works, or is refused in a line.

`python -m benchmarks.check_settings` does the same on other machines.
"""

import pytest

from benchmarks import check_settings

# What most users of a CPU would change; the others are tried by `-m fault`.
_ALWAYS = ({'model.dtype': 'bfloat16', 'model.num_layers': 1, 'mesh.data': 1},)
_SETTINGS = [
  *_ALWAYS,
  *(
    pytest.param(setting, marks=pytest.mark.fault)
    for setting in check_settings.settings()
  ),
]


@pytest.mark.parametrize('setting', _SETTINGS, ids=check_settings.text)
def test_a_setting_works_or_is_refused(tmp_path, setting):
  outcome = check_settings.check(setting, tmp_path)
  assert outcome.word != 'failed', outcome.error
  assert '\n' not in outcome.error


def test_every_choice_of_the_dtype_is_tried():
  tried = [setting.get('model.dtype') for setting in check_settings.settings()]
  assert {'float32', 'bfloat16'} <= set(tried)
