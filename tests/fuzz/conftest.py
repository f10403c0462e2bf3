"""How many inputs a reader gets: HYPOTHESIS_PROFILE=thorough for 10,000."""

import os

import hypothesis

_COMMON = {
  'deadline': None,
  'database': None,
  # The same inputs in every run, but for those of the thorough one.
  'derandomize': True,
  'suppress_health_check': list(hypothesis.HealthCheck),
}
hypothesis.settings.register_profile('quick', max_examples=50, **_COMMON)
hypothesis.settings.register_profile(
  'thorough', max_examples=10_000, **_COMMON | {'derandomize': False}
)
hypothesis.settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'quick'))
