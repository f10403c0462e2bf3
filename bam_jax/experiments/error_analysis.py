"""Collects the rows and predictions for the report's error analysis.

This module reads raw rows, the dev outputs of one student and of its teacher,
and the logits of out-of-fold teachers. It computes nothing on devices and
writes no file. If an input is missing, the result holds the reason instead of
the rows.
"""

from collections.abc import Sequence
import logging

import numpy as np

from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import variants
from bam_jax.core import teachers
from bam_jax.data import manifest
from bam_jax.data import prepare
from bam_jax.data import shards
from bam_jax.data import sources
from bam_jax.distillation import logit_sets
from bam_jax.experiments import labelling
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import runs as runs_lib
from bam_jax.reporting import error_rows
from bam_jax.reporting import outputs
from bam_jax.reporting import verdicts
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib

Decided = Sequence[kind_lib.Decided]


def analyse(
  plan: plan_lib.Plan, finished: Sequence[runs_lib.Run]
) -> error_rows.Analysis:
  """Analyses the errors of one student, on its first finished seed.

  The student is the multi-task variant that the report's verdicts are about. If
  no multi-task variant over all tasks has a finished run, the student is the
  last variant with a finished run.
  """
  names = [
    v for v in plan.config.variants if any(r.variant == v for r in finished)
  ]
  student = verdicts.find_student(plan.config, names) or names[-1]
  known = {run.seed for run in finished if run.variant == student}
  seed = next(s for s in config_lib.seeds_of_shard(plan.config) if s in known)
  runs = {
    task: run
    for run in finished
    if (run.variant, run.seed) == (student, seed)
    for task in run.tasks
  }
  found, missing = {}, {}
  for task in plan.tasks.tasks:
    try:
      if task.name not in runs:
        raise outputs.Missing('its run is not finished')
      found[task.name] = _analyse(plan, task, runs[task.name])
    except outputs.Missing as reason:
      missing[task.name] = str(reason)
  teacher = variants.resolve(plan.config, student).teacher
  return error_rows.Analysis(student, seed, teacher, found, missing)


def _analyse(
  plan: plan_lib.Plan, task: task_lib.Task, run: runs_lib.Run
) -> error_rows.TaskErrors:
  """Analyses one model of a task.

  Raises:
    outputs.Missing: the model has no usable dev outputs, or the dev rows can't
      be read or have changed.
  """
  path = plan.workspace.outputs(run.name)
  uids, decided = outputs.read_decided(task, path)
  split = task.dev_splits[0]
  rows = _read_rows(plan, task, split)
  if [task_lib.make_uid(task.name, split, row) for row in rows.numbers] != uids:
    raise outputs.Missing(f'{_file(plan, task, split)} has other rows by now')
  missing, teacher = {}, None
  try:
    teacher = _teacher(plan, task, run, uids)
  except outputs.Missing as reason:
    missing[error_rows.DISAGREEMENT] = str(reason)
  of_reason = {error_rows.WRONG: (rows, decided, teacher)}
  if teacher:
    of_reason[error_rows.DISAGREEMENT] = rows, decided, teacher
  try:
    of_reason[error_rows.LABEL] = *_out_of_fold(plan, task, run), None
  except outputs.Missing as reason:
    missing[error_rows.LABEL] = str(reason)
  found, counts = {}, {}
  for reason, (own, *models) in of_reason.items():
    found[reason], count = error_rows.find(task, own, reason, *models)
    counts[reason] = count, len(own.labels)
  pairs = error_rows.confusions(task, rows.labels, decided)
  return error_rows.TaskErrors(found, counts, pairs, missing)


def _teacher(
  plan: plan_lib.Plan,
  task: task_lib.Task,
  run: runs_lib.Run,
  uids: Sequence[str],
) -> Decided:
  """Returns the dev predictions of the teacher that has the student's seed.

  Raises:
    outputs.Missing: there is no such teacher, or its dev outputs are not usable
      or are for other rows.
  """
  name = variants.resolve(plan.config, run.variant).teacher
  if run.logits or not name:
    what = 'external logits' if run.logits else 'no model'
    raise outputs.Missing(f'it was taught by {what}')
  for other in plan.runs:
    is_teacher = (other.variant, other.seed) == (name, run.seed)
    if is_teacher and task.name in other.tasks and not other.fold:
      path = plan.workspace.outputs(other.name)
      known, decided = outputs.read_decided(task, path)
      if known != uids:
        raise outputs.Missing(f'{other.name} has other dev rows')
      return decided
  raise outputs.Missing(
    f'its teachers each leave a fold out; with {name} in config.variants there'
    ' is one of all rows'
  )


def _out_of_fold(
  plan: plan_lib.Plan, task: task_lib.Task, student: runs_lib.Run
) -> tuple[error_rows.Rows, Decided]:
  """Returns training rows, and the teachers' out-of-fold predictions for them.

  Each row is predicted by the teachers that were not trained on it. If the
  teachers have several seeds, their logits are averaged.

  Raises:
    outputs.Missing: there are no such teachers, or their logits or the rows are
      missing.
  """
  by_seed: dict[int, list[runs_lib.Run]] = {}
  for run in plan.runs:
    if run.fold and run.name in student.teachers.get(task.name, ()):
      # A teacher's own teachers were trained on the labels of its fold.
      if run.is_taught:
        raise outputs.Missing('its teachers were taught themselves')
      by_seed.setdefault(run.seed, []).append(run)
  if not by_seed:
    raise outputs.Missing(
      'it has no teachers that leave a fold of the training rows out; with'
      ' config.distill.folds=5 students have'
    )
  split = task.train_split
  directory = plan.workspace.features(task.name, split)
  try:
    columns = shards.open(directory, prepare.feature_fields(task), None)
    offsets = np.arange(len(columns) + 1)
    if task.kind.per_token:
      offsets = columns.ragged('input_ids')[1]
    logits = teachers.mean_predictions(
      teachers.choose_out_of_fold(
        offsets, [_read_logits(plan, run, task, columns) for run in runs]
      )
      for runs in by_seed.values()
    )
  except errors.UserError as error:
    logging.info('No search for wrong labels of %s: %s', task.name, error)
    raise outputs.Missing(
      'the features of the training rows, or the logits of the teachers, are'
      ' not in the work directory as they were'
    ) from error
  arrays = task.kind.outputs(task, logits, columns)
  by_uid = dict(zip(arrays['uid'].tolist(), task.kind.decided(task, arrays)))
  rows = _read_rows(plan, task, split)
  # Swapped copies have other uids, so they are left out here.
  uids = [task_lib.make_uid(task.name, split, row) for row in rows.numbers]
  return rows, [by_uid[uid] for uid in uids]


def _read_logits(
  plan: plan_lib.Plan,
  run: runs_lib.Run,
  task: task_lib.Task,
  columns: shards.Columns,
) -> tuple[np.ndarray, np.ndarray]:
  identity = plan.workspace.identity(run.name)
  if identity is None or plan.read_record(run) is None:
    raise errors.UserError(f'{run.name} is not finished')
  source = labelling.find_set(
    *(plan.workspace, run, identity, task.name, task.train_split, columns)
  )
  return logit_sets.read(source, columns, task)


def _read_rows(
  plan: plan_lib.Plan, task: task_lib.Task, split: str
) -> error_rows.Rows:
  """Reads the raw rows of a split.

  Raises:
    outputs.Missing: the rows can't be read, or have changed since the features
      were made.
  """
  directory = plan.workspace.features(task.name, split)
  try:
    examples = list(sources.read(task, split, plan.config.data))
    if shards.exists(directory):
      rows = manifest.read(directory).fingerprint.get('rows')
      if rows != sources.rows_digest(examples):
        raise outputs.Missing(
          f'{_file(plan, task, split)} has changed since the features were made'
        )
  except errors.UserError as error:
    logging.info('No error analysis of %s: %s', task.name, error)
    raise outputs.Missing(
      f'{_file(plan, task, split)} cannot be read'
    ) from error
  names = task.kind.input_names(task)[0]
  return error_rows.Rows(
    split,
    [task_lib.row_index(example.uid) for example in examples],
    [example.label for example in examples],
    [
      dict(zip(names, (example.text_a, example.text_b))) for example in examples
    ],
  )


def _file(plan: plan_lib.Plan, task: task_lib.Task, split: str) -> str:
  return sources.Source(task, split, plan.config.data).name
