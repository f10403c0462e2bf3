"""One model to train, and the values of its schedules at each step."""

import dataclasses
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax.core import annealing
from bam_jax.core import optimizer
from bam_jax.core import step as step_lib
from bam_jax.data import batches as batches_lib
from bam_jax.training import evaluate


@dataclasses.dataclass(frozen=True)
class Job:
  """One model to train: data, length and places of its files.

  Attributes:
    name: for the progress bar and the logs.
    directory: where checkpoints and metrics are written.
    seed: seed of the dropout masks.
    batches: step -> batch.
    num_steps: number of steps of the run.
    length: batch size, peak learning rate, layer decay.
    taught: whether targets are annealed from a teacher's to the gold labels.
    dev: splits to score, by task and split.
  """

  name: str
  directory: Path
  seed: int
  batches: batches_lib.TrainBatches
  num_steps: int
  length: config_lib.RunLengthConfig
  taught: bool
  dev: evaluate.Splits


def step_schedule(
  step: int, job: Job, config: config_lib.Config
) -> step_lib.StepSchedule:
  """Values of the schedules at a step, which the program takes as data."""
  gold_weight = 1.0
  if job.taught:
    gold_weight = annealing.gold_weight(
      config.distill.annealing,
      step / job.num_steps,
      config.distill.constant,
      config.distill.step_at,
    )
  return step_lib.StepSchedule(
    learning_rate=optimizer.learning_rate(
      step,
      job.num_steps,
      job.length.learning_rate,
      config.optimizer.warmup,
      config.optimizer.schedule,
    ),
    gold_weight=gold_weight,
    layer_decay=job.length.layer_decay,
  )
