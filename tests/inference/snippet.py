"""The code in a program's card, run where this package is not."""

from collections.abc import Sequence
from pathlib import Path
import re
import subprocess
import sys

import numpy as np

# This package is not there, nor most of what it needs.
_ALONE = """
import sys
for name in ('bam_jax', 'flax', 'optax', 'orbax', 'safetensors', 'chex'):
  sys.modules[name] = None
"""


def run(
  directory: Path, texts: Sequence[str | tuple[str, str]]
) -> dict[str, np.ndarray]:
  """What it says of some texts, by task, in a process of its own."""
  card = (directory / 'README.md').read_text()
  code = re.search(r'```python\n(.*?)```', card, re.DOTALL)[1]
  out = directory.parent / 'found.npz'
  save = f'np.savez({str(out)!r}, **predict({texts!r}))'
  subprocess.run(
    [sys.executable, '-I', '-c', f'{_ALONE}\n{code}\n{save}'],
    cwd=directory,
    check=True,
    timeout=300,
  )
  with np.load(out) as found:
    return dict(found)
