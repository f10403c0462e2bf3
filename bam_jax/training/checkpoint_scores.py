"""The scores of a run's checkpoints, and which checkpoints are kept.

A checkpoint has its score in a file of its own and in its metadata. One that
was saved before its evaluation gets its score in the metadata of the next.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
from pathlib import Path
from typing import Any

from orbax.checkpoint import checkpoint_managers as policies

from bam_jax import schema

# Of a step's files: there in each whole one.
MARK = '_CHECKPOINT_METADATA'

SCORE = 'score'
# Metrics of steps that the log has not got yet.
_UNLOGGED = 'unlogged'
# Scores of earlier steps, whose own checkpoints were saved without.
_LATE_SCORES = 'late_scores'
_DIGEST = 'digest'


def kept(directory: Path) -> list[int]:
  """Which of the steps in a folder its manager keeps: the best, the latest.

  It deletes the others after the step that replaces them has got its name, so
  these are whole as long as no new one comes.

  Raises:
    OSError, ValueError: a score can't be read; another step may just have come.
  """
  steps = sorted(
    int(path.parent.name.removeprefix('step_'))
    for path in directory.glob(f'step_*/{MARK}')
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
  """What `Checkpoints.save` gave the checkpoint in a folder.

  Orbax's own `metadata` opens each array too, and some may be gone.
  """
  return json.loads((directory / MARK).read_text()).get('custom_metadata') or {}


def read_score(directory: Path) -> float | None:
  """The score of the checkpoint in a folder; None if it was saved without."""
  path = directory / 'metrics' / 'metrics'
  return json.loads(path.read_text())[SCORE] if path.exists() else None


def best_step(scores: Mapping[int, float], steps: Sequence[int]) -> int | None:
  """The step with the highest score, the last one of equals."""
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
  """Metadata with which a checkpoint carries what `read_carried` returns."""
  carried = {_UNLOGGED: list(unlogged), _LATE_SCORES: dict(late)}
  return carried | {_DIGEST: schema.digest(carried)}


def read_carried(
  metadata: Mapping[str, Any],
) -> tuple[list[list[float]], dict[int, float]]:
  """What a checkpoint's metadata carries of its run: unlogged, late scores.

  Raises:
    ValueError: it is damaged.
  """
  if _DIGEST not in metadata:
    return [], {}
  carried = {key: metadata[key] for key in (_UNLOGGED, _LATE_SCORES)}
  if schema.digest(carried) != metadata[_DIGEST]:
    raise ValueError('the scores of earlier steps fail their digest')
  late = {int(step): score for step, score in carried[_LATE_SCORES].items()}
  return carried[_UNLOGGED], late
