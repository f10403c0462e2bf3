"""Teacher annealing: the weight of the gold labels as training proceeds."""

import math


def gold_weight(
  kind: str, progress: float, constant: float = 0.5, step_at: float = 0.5
) -> float:
  """The weight λ of the gold label in λ·gold + (1-λ)·teacher.

  Clark et al. (2019), section 3, anneal linearly: the student starts as a pure
  copy of its teacher and ends on the labels.

  >>> gold_weight('linear', 0.25)
  0.25
  >>> gold_weight('step', 0.25), gold_weight('step', 0.5)
  (0.0, 1.0)

  Args:
    kind: `linear`: progress itself; `constant`; `cosine`: half a cosine wave
      from 0 to 1; `step`: 0, and 1 from `step_at` on.
    progress: step / total steps, 0-1.
    constant: λ under `constant`, 0-1.
    step_at: where `step` jumps, share of training.

  Returns:
    λ, 0-1. A host number: the compiled step takes it as data.

  Raises:
    ValueError: progress outside 0-1, or an unknown kind.
  """
  if not 0.0 <= progress <= 1.0:
    raise ValueError(f'progress is {progress}, must be from 0 to 1')
  match kind:
    case 'linear':
      return float(progress)
    case 'constant':
      return float(constant)
    case 'cosine':
      return (1.0 - math.cos(math.pi * progress)) / 2.0
    case 'step':
      return float(progress >= step_at)
  raise ValueError(f'unknown annealing {kind!r}')
