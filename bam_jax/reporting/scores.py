"""Scores of one task by one run, the input of a report.

This module imports no plotting or table library, so that it loads fast.
"""

from collections.abc import Mapping
import dataclasses
from pathlib import Path

# `dev` or `train` -> name -> value, from `distillation.quality`.
Quality = Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class RunScores:
  """Scores of one task by one run.

  Attributes:
    variant: one of `config.variant_names`.
    seed: seed of the run.
    task: name of the task.
    scores: dev split -> metric -> value, 0-100; nan where undefined.
    curve: metrics.jsonl of the training run; the tasks of a multi-task run
      share it. It may be missing.
    outputs: outputs.npz of the same run. It may be missing.
    quality: quality of the run as a teacher; empty if none is recorded.
    share: intended share of the task in the run's examples, 0 to 1; None if it
      is not recorded.
    undefined: dev split -> metric -> why its score is undefined.
    decisions: the values of `inference.decisions.fit`, if any are wanted.
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
