"""The scores of a run's checkpoints, and which checkpoints are kept.

A checkpoint holds its score in a file of its own and in its metadata. The score
of a checkpoint saved before its evaluation is in the metadata of the next one.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
from pathlib import Path
from typing import Any

from orbax.checkpoint import checkpoint_managers as policies

from bam_jax import schema

# The file of a checkpoint that Orbax writes last.
SENTINEL = '_CHECKPOINT_METADATA'

SCORE = 'score'
# Metrics of steps that are not in the log yet.
_UNLOGGED = 'unlogged'
# Scores of earlier checkpoints that were saved without one.
_LATE_SCORES = 'late_scores'
_DIGEST = 'digest'


def kept(directory: Path) -> list[int]:
  """Steps of the checkpoints in a folder that are kept: best and latest.

  The others are deleted once the checkpoint that replaces them has its final
  name, so these are complete until a new checkpoint appears.

  Raises:
    OSError, ValueError: a score can't be read; a new checkpoint may just have
      appeared.
  """
  steps = sorted(
    int(path.parent.name.removeprefix('step_'))
    for path in directory.glob(f'step_*/{SENTINEL}')
    if path.parent.name.removeprefix('step_').isdecimal()
  )
  if not steps:
    return []
  found = {step: read_score(directory / f'step_{step}') for step in steps}
  scores = {step: score for step, score in found.items() if score is not None}
  scores |= read_carried(read_metadata(directory / f'step_{steps[-1]}'))[1]
  best = best_step(scores, steps)
  return sorted({steps[-1], steps[-1] if best is None else best})


def read_metadata(directory: Path) -> Mapping[str, Any]:
  """The metadata with which `Checkpoints.save` wrote a checkpoint.

  Orbax's own `metadata` also opens each array, and some may be deleted already.
  """
  return (
    json.loads((directory / SENTINEL).read_text()).get('custom_metadata') or {}
  )


def read_score(directory: Path) -> float | None:
  """The score in a checkpoint's folder; None if it was saved without one."""
  path = directory / 'metrics' / 'metrics'
  return json.loads(path.read_text())[SCORE] if path.exists() else None


def best_step(scores: Mapping[int, float], steps: Sequence[int]) -> int | None:
  """The step with the highest score; among equal scores the latest."""
  scored = [step for step in sorted(steps) if step in scores]
  return sorted(scored, key=scores.get)[-1] if scored else None


@dataclasses.dataclass(frozen=True)
class PreserveBest(policies.PreservationPolicy):
  """Preserves the best checkpoint, by scores that Orbax may not know.

  Attributes:
    scores: step -> score; may change at any time.
  """

  scores: Mapping[int, float]

  def should_preserve(
    self,
    checkpoints: Sequence[Any],
    *,
    context: policies.PreservationContext,
  ) -> Sequence[bool]:
    del context
    steps = [checkpoint.step for checkpoint in checkpoints]
    best = best_step(self.scores, steps)
    return [step == best for step in steps]


def carry(
  unlogged: Sequence[Sequence[float]], late: Mapping[str, float]
) -> dict[str, object]:
  """Metadata for a checkpoint that `read_carried` reads back."""
  carried = {_UNLOGGED: list(unlogged), _LATE_SCORES: dict(late)}
  return carried | {_DIGEST: schema.digest(carried)}


def read_carried(
  metadata: Mapping[str, Any],
) -> tuple[list[list[float]], dict[int, float]]:
  """Unlogged metrics and late scores in a checkpoint's metadata.

  Raises:
    ValueError: they fail their digest.
  """
  if _DIGEST not in metadata:
    return [], {}
  carried = {key: metadata[key] for key in (_UNLOGGED, _LATE_SCORES)}
  if schema.digest(carried) != metadata[_DIGEST]:
    raise ValueError('the scores of earlier steps fail their digest')
  late = {int(step): score for step, score in carried[_LATE_SCORES].items()}
  return carried[_UNLOGGED], late
