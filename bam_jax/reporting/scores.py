"""Defines `RunScores`: the scores of one run on one task, for reports.

This module imports no plotting or table library, so that it loads fast.
"""

from collections.abc import Mapping
import dataclasses
from pathlib import Path

# `dev` or `train` -> name -> value, from `distillation.quality`.
Quality = Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class RunScores:
  """Scores of one run on one task.

  Attributes:
    variant: one of `config.variant_names`.
    seed: seed of the run.
    task: name of the task.
    scores: dev split -> metric -> value, 0-100, or nan if undefined.
    curve: path of the run's metrics.jsonl. All tasks of a multi-task run have
      the same path. The file may be missing.
    outputs: path of the run's outputs.npz. The file may be missing.
    quality: quality of the run as a teacher; empty if it is not recorded.
    share: intended share of the task in the run's examples, 0 to 1; None if it
      is not recorded.
    undefined: dev split -> metric -> why its score is undefined.
    decisions: the result of `inference.decisions.fit`; empty unless
      `config.decisions` asks for temperatures or thresholds.
  """

  variant: str
  seed: int
  task: str
  scores: Mapping[str, Mapping[str, float]]
  curve: Path
  outputs: Path
  quality: Quality
  share: float | None
  undefined: Mapping[str, Mapping[str, str]] = dataclasses.field(
    default_factory=dict
  )
  decisions: Mapping[str, object] = dataclasses.field(default_factory=dict)
