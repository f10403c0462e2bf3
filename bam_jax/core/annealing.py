"""Teacher annealing: the weight of the gold labels rises during training."""

import math


def gold_weight(
  kind: str, progress: float, constant: float = 0.5, step_at: float = 0.5
) -> float:
  """Weight λ of the gold label in the target λ·gold + (1-λ)·teacher.

  Clark et al. (2019), section 3, raise λ linearly: the student first learns
  only from its teacher, and at the end only from the gold labels.

  >>> gold_weight('linear', 0.25)
  0.25
  >>> gold_weight('step', 0.25), gold_weight('step', 0.5)
  (0.0, 1.0)

  Args:
    kind: how λ depends on `progress`. `linear`: λ equals `progress`.
      `constant`: λ is always `constant`. `cosine`: λ follows half a cosine wave
      from 0 to 1. `step`: λ is 0 before `step_at` and 1 from `step_at` on.
    progress: step / total steps, 0-1.
    constant: λ of kind `constant`, 0-1.
    step_at: progress at which kind `step` jumps, 0-1.

  Raises:
    ValueError: the progress is outside 0-1, or the kind is unknown.
  """
  if not 0.0 <= progress <= 1.0:
    raise ValueError(f'progress is {progress}, but must be from 0 to 1')
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
