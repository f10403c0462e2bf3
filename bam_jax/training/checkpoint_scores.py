"""Reads the scores of checkpoints and decides which checkpoints are kept.

A checkpoint stores its score in a file and in its metadata. The metadata also
holds the scores of all earlier steps. If a step was saved before its
evaluation, its score is only in the metadata of later checkpoints.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
from pathlib import Path
from typing import Any

from orbax.checkpoint import checkpoint_managers as policies

from bam_jax import schema

# The file of a checkpoint that Orbax writes last.
SENTINEL = '_CHECKPOINT_METADATA'

SCORE = 'score'
# Keys of the metadata: metrics of steps that are not in the log yet, scores of
# earlier steps, and the digest of both.
_UNLOGGED, _EARLIER_SCORES, _DIGEST = 'unlogged', 'late_scores', 'digest'


def kept(directory: Path) -> list[int]:
  """Returns the steps of the best and the latest checkpoint in a folder.

  Orbax may delete all other checkpoints at any time. The best and the latest
  checkpoint stay complete until another checkpoint appears.

  Raises:
    OSError, ValueError: a score can't be read, perhaps because another
      checkpoint has just appeared.
  """
  steps = sorted(
    int(path.parent.name.removeprefix('step_'))
    for path in directory.glob(f'step_*/{SENTINEL}')
    if path.parent.name.removeprefix('step_').isdecimal()
  )
  if not steps:
    return []
  scores = {step: read_score(directory / f'step_{step}') for step in steps}
  _, earlier = read_carried(read_metadata(directory / f'step_{steps[-1]}'))
  return sorted({steps[-1], best_step(scores | earlier, steps)} - {None})


def read_metadata(directory: Path) -> Mapping[str, Any]:
  """Reads the metadata that `Checkpoints.save` wrote.

  Orbax's `metadata` method would also open each array, but some arrays may
  already be deleted.
  """
  return (
    json.loads((directory / SENTINEL).read_text()).get('custom_metadata') or {}
  )


def read_score(directory: Path) -> float | None:
  """Returns a checkpoint's score, or None if it was saved without a score."""
  path = directory / 'metrics' / 'metrics'
  return json.loads(path.read_text())[SCORE] if path.exists() else None


def best_step(
  scores: Mapping[int, float | None], steps: Sequence[int]
) -> int | None:
  """Returns the step with the highest score; on a tie, the earliest step.

  Returns None if no step has a score.
  """
  scored = [step for step in steps if scores.get(step) is not None]
  return max(scored, key=lambda step: (scores[step], -step), default=None)


def is_out_of_patience(
  scores: Mapping[int, float], step: int, most_steps: int
) -> bool:
  """Returns whether the best step was at least `most_steps` steps ago.

  A score equal to the best score is not an improvement (see `best_step`).

  Args:
    scores: scores by step, up to `step`; no score is nan. If `scores` is empty,
      step 0 counts as the best step.
    step: the current step.
    most_steps: how many steps may pass without an improvement.
  """
  return step - (best_step(scores, [*scores]) or 0) >= most_steps


@dataclasses.dataclass(frozen=True)
class PreserveBest(policies.PreservationPolicy):
  """Orbax policy that keeps the checkpoint with the best score.

  Orbax's own policy ignores a score that is added after its checkpoint was
  saved.
  """

  scores: Mapping[int, float]  # Score by step; may change at any time.

  def should_preserve(
    self,
    checkpoints: Sequence[Any],
    *,
    context: policies.PreservationContext,
  ) -> Sequence[bool]:
    steps = [checkpoint.step for checkpoint in checkpoints]
    best = best_step(self.scores, steps)
    return [step == best for step in steps]


def carry(
  unlogged: Sequence[Sequence[float]], earlier: Mapping[int, float]
) -> dict[str, object]:
  """Packs unlogged metrics and earlier scores into a checkpoint's metadata."""
  scores = {str(step): score for step, score in sorted(earlier.items())}
  carried = {_UNLOGGED: list(unlogged), _EARLIER_SCORES: scores}
  return carried | {_DIGEST: schema.digest(carried)}


def read_carried(
  metadata: Mapping[str, Any],
) -> tuple[list[list[float]], dict[int, float]]:
  """Reads unlogged metrics and earlier scores from a checkpoint's metadata.

  Raises:
    ValueError: the metrics and scores do not match their digest.
  """
  if _DIGEST not in metadata:
    return [], {}
  carried = {key: metadata[key] for key in (_UNLOGGED, _EARLIER_SCORES)}
  if schema.digest(carried) != metadata[_DIGEST]:
    raise ValueError('the scores of earlier steps fail their digest')
  scores = carried[_EARLIER_SCORES].items()
  return carried[_UNLOGGED], {int(step): score for step, score in scores}
