"""One model to train, and what its schedules say for each step."""

import dataclasses
from pathlib import Path

from bam_jax import config as config_lib
from bam_jax.core import annealing
from bam_jax.core import optimizer
from bam_jax.data import batches as batches_lib
from bam_jax.training import evaluate
from bam_jax.training import step as step_lib


@dataclasses.dataclass(frozen=True)
class Job:
  """One model to train, everything resolved.

  Attributes:
    name: for the progress bar and the logs.
    directory: where checkpoints and metrics go.
    seed: of dropout; initialisation and data order already follow theirs.
    batches: step -> batch.
    num_steps: the length of the run.
    length: batch size, peak learning rate, layer decay.
    taught: whether the targets slide from a teacher's to the gold labels.
    dev: what to score, by task and split.
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
  """What changes with the step: data of the compiled program, no constants."""
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
