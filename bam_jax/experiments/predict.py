"""The command `predict`, and loading a group of runs as one model."""

from collections.abc import Sequence
import logging
from pathlib import Path

from bam_jax import errors
from bam_jax.data import sources
from bam_jax.experiments import plan as plan_lib
from bam_jax.inference import model as model_lib
from bam_jax.inference import own_file
from bam_jax.inference import submission
from bam_jax.runtime import processes
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib
from bam_jax.training import evaluate


def predict(
  plan: plan_lib.Plan,
  group: str | None,
  majority: Sequence[str] = (),
  kept: tuple[str, ...] | None = None,
) -> None:
  """Predicts the test splits with the best checkpoints of a group of runs.

  Writes these files to `predictions/GROUP/`:

    TASK-SPLIT.tsv   the predictions.
    TASK-SPLIT.json  the predictions by id, if the official scorer for this kind
                     of task reads them so, and the rows have ids.
    submission.zip   the GLUE submission, if a task belongs to GLUE. For tasks
                     in `majority`, it has the majority label instead of the
                     predictions. The .tsv files keep the predictions.

  `kept` names the columns to copy from the test files of custom tasks to the
  .tsv files. Columns that a file lacks are ignored. None: `own_file.KEPT`.

  Raises:
    errors.UserError: no task has a test file; or see `Plan.find_group` and
      `submission.check_majority`.
  """
  submission.check_majority(majority, plan.tasks)
  group, runs = plan.find_group(group)
  directory = plan.workspace.root / 'predictions' / group
  predictions: dict[str, dict[str, dict[str, str]]] = {}
  for run in runs:
    params = plan.restore_params(run.name, best=True)
    params = plan.setup.programs.split_layers(params)
    for name, task in plan.decided_tasks(run).items():
      for split in task.test_splits:
        rows = plan.prepare_split(task, split, is_optional=True)
        if rows is None:
          continue
        head, packing = plan.tasks.index[name], plan.config.packing
        logits = evaluate.predict(
          plan.setup.programs, params, rows, head, packing
        )
        found = task.kind.predict(task, logits, rows)
        path = directory / f'{name}-{split}.tsv'
        processes.run_on_first(_write_tsv, plan, task, split, path, found, kept)
        if task.kind.by_id:
          by_id = path.with_suffix('.json')
          processes.run_on_first(_write_by_id, plan, task, split, by_id, found)
        texts = {each.uid: each.text for each in found}
        predictions.setdefault(name, {})[split] = texts
  if not predictions:
    raise errors.UserError(
      f'config.data: none of the tasks {", ".join(plan.tasks.names)} has a'
      ' test file; add one to config.data.dir or to the custom task, or give'
      ' any file by --input and --task'
    )
  for name in majority:
    task = plan.tasks[name]
    train = plan.prepare_split(task, task.train_split)
    predictions[name] = submission.majority(
      task, train, predictions.get(name, {})
    )
  processes.run_on_first(
    submission.write, directory / 'submission.zip', plan.tasks, predictions
  )
  logging.info('predictions: %s', directory)


def _write_tsv(
  plan: plan_lib.Plan,
  task: task_lib.Task,
  split: str,
  path: Path,
  found: Sequence[kind_lib.Prediction],
  names: tuple[str, ...] | None,
) -> None:
  """Writes predictions as TSV; copies columns of a custom task's test file."""
  data, own = plan.config.data, {}
  if task.name in plan.config.custom_tasks:
    names = own_file.KEPT if names is None else names
    rows = sources.read_raw(task, split, data, kept=names)
    own = {uid: row.kept for uid, row in rows}
  submission.write_tsv(path, task, found, own)


def _write_by_id(
  plan: plan_lib.Plan,
  task: task_lib.Task,
  split: str,
  path: Path,
  found: Sequence[kind_lib.Prediction],
) -> None:
  """Writes predictions by id; logs a warning if the rows have no ids."""
  field, _ = task.kind.by_id
  rows = sources.read_raw(task, split, plan.config.data, group=field)
  try:
    ids = {uid: row.group for uid, row in rows}
  except errors.UserError as e:
    logging.warning('%s is not written for the official scorer: %s', path, e)
    return
  submission.write_by_id(path, task, ids, found)


def load_model(plan: plan_lib.Plan, group: str | None) -> model_lib.Model:
  """Loads the best checkpoints of a group as one model, to predict on texts."""
  _, runs = plan.find_group(group)
  return model_lib.Model(
    plan.setup.programs,
    [
      (plan.decided_tasks(run), plan.restore_params(run.name, best=True))
      for run in runs
    ],
    plan.encoder.tokenizer,
    plan.config,
  )
