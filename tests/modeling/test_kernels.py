"""Which kernels a device has."""

import types

import jax
import pytest

from bam_jax.modeling import kernels


@pytest.mark.parametrize(
  ('platform', 'version', 'expected'),
  [
    ('gpu', 'PJRT C API\ncuda 13000', 'cuda'),
    ('gpu', 'PJRT C API\nrocm 60200', ''),
    ('tpu', 'PJRT C API\nTFRT TPU v5 lite', 'tpu'),
  ],
)
def test_kernels_of_a_device(platform, version, expected):
  client = types.SimpleNamespace(platform_version=version)
  device = types.SimpleNamespace(platform=platform, client=client)
  assert kernels.find_platform(device) == expected


def test_a_cpu_is_known():
  assert kernels.find_platform(jax.devices()[0]) == 'cpu'
