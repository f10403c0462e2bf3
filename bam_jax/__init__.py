"""Born-Again Multi-Task learning in JAX and Flax.

`fit`, `load`, `Task` and `UserError` come from `bam_jax.api`. That module is
imported when one of these names is first used, because importing JAX takes
seconds.
"""

import importlib

__version__ = '0.1.0'
_API = ('Task', 'UserError', 'fit', 'load')


def __dir__() -> list[str]:
  return sorted({*globals(), *_API})


def __getattr__(name: str) -> object:
  if name in _API:
    return getattr(importlib.import_module('bam_jax.api'), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
