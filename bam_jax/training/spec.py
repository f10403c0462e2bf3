"""The specification of one training run for the training loop."""

import dataclasses
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax.core import annealing
from bam_jax.core import optimizer
from bam_jax.core import step as step_lib
from bam_jax.data import batches as batches_lib
from bam_jax.training import evaluate

# Minimum number of `sampled_steps`; there are always fewer than twice as many.
# A run with fewer steps has all its steps in `sampled_steps`.
_SAMPLED_STEPS = 64


@dataclasses.dataclass(frozen=True)
class TrainSpec:
  """Everything that the training loop needs to train one model."""

  name: str  # Name of the run, for the progress bar and the logs.
  directory: Path  # Folder for checkpoints and metrics.
  seed: int  # Seed of the initial heads and of the dropout masks.
  batches: batches_lib.TrainBatches
  num_steps: int
  length: config_lib.RunLengthConfig  # Batch size, learning rate, layer decay.
  is_taught: bool  # Whether targets are annealed from a teacher to gold labels.
  dev: evaluate.Splits  # The rows to score, by task and split.
  # Held-out training rows that choose the best step; None without patience.
  choosing: evaluate.Splits | None
  config: config_lib.Config

  @property
  def sampled_steps(self) -> range:
    """Evenly spaced steps, as a sample of the run."""
    return range(0, self.num_steps, max(self.num_steps // _SAMPLED_STEPS, 1))

  def schedule(self, step: int) -> step_lib.StepSchedule:
    """Returns the values of the schedules at a step."""
    distill, adam = self.config.distill, self.config.optimizer
    progress, gold_weight = step / self.num_steps, 1.0
    if self.is_taught:
      gold_weight = annealing.gold_weight(
        distill.annealing, progress, distill.constant, distill.step_at
      )
    peak = self.length.learning_rate
    return step_lib.StepSchedule(
      learning_rate=optimizer.learning_rate(
        step, self.num_steps, peak, adam.warmup, adam.schedule
      ),
      gold_weight=gold_weight,
      layer_decay=self.length.layer_decay,
    )
