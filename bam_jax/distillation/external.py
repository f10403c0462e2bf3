"""External logits: sets that another plan or program wrote for students here.

    DIR/TASK/            the set of one teacher
    DIR/TEACHER/TASK/    sets of several, whose predictions are averaged

and TASK.unlabelled beside TASK if students learn from rows without labels.

Whoever has the raw rows can write such a set: a plan with another encoder or
vocabulary (`--mode=label`), or any other program. Its fingerprint names the
rows, the labels and the teacher. Imports no JAX.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bam_jax import errors
from bam_jax import files
from bam_jax.data import manifest as manifest_lib
from bam_jax.data import prepare
from bam_jax.data import shards
from bam_jax.distillation import logit_sets
from bam_jax.tasks import task as task_lib

# Further parts of the fingerprint of logits of tokens.
_TOKEN_KEYS = ('tokenizer', 'max_length')
# Scores are read as predictions, whichever head computed them.
REGRESSION_HEAD = 'linear'

_OTHER_OUTPUT = 'write into another --output, or remove that folder'
_LABEL_AGAIN = 'have its teacher label the rows of this plan'


def fingerprint(
  task: task_lib.Task,
  rows: str,
  teacher: str,
  teacher_digest: str,
  tokens: Mapping[str, object] | None = None,
) -> dict[str, object]:
  """Returns the fingerprint of an external set.

  Args:
    task: the task; its name, kind, labels in order and scale are part of it.
    rows: `sources.rows_digest` of the raw training rows.
    teacher: description of the teacher.
    teacher_digest: tells it from other teachers with that description, such
      as the sha256 of its weights.
    tokens: the features' fingerprint, with `tokenizer` and `max_length`; read
      if the task's outputs are of tokens.
  """
  return {
    'rows': rows,
    'task': task.definition(),
    'teacher': {'name': teacher, 'digest': teacher_digest},
    **(
      {key: tokens[key] for key in _TOKEN_KEYS} if task.kind.per_token else {}
    ),
  }


def write(
  directory: Path,
  task: task_lib.Task,
  rows: str,
  uids: Sequence[str],
  logits: np.ndarray,
  teacher: str,
  teacher_digest: str,
) -> None:
  """Writes the set of one teacher and task, all or nothing.

  Args:
    directory: `DIR/TASK`, or `DIR/TEACHER/TASK`; a set there is replaced.
    task: has outputs for each example, not for each token.
    rows: `sources.rows_digest` of all raw training rows.
    uids: of n training rows, including those of swapped copies (`…~swap`) if
      the student is to be trained on these.
    logits: [n, c], c = `task.num_outputs`, in the order of `task.labels`,
      before softmax (classification) or sigmoid (multilabel); of a regression
      task the predicted score itself, (score - low) / (high - low).
    teacher: description of the teacher.
    teacher_digest: tells it from other teachers with that description.

  Raises:
    errors.UserError: the arguments don't fit together, or the folder can't be
      written; a set that was there stays.
  """

  def require(condition: bool, message: str) -> None:
    if not condition:
      raise errors.UserError(f'{directory}: {message}')

  logits = np.asarray(logits, np.float32)
  require(
    not task.kind.per_token,
    f"a {task.kind.name} task's logits are of one vocabulary's tokens; only"
    ' --mode=label writes them',
  )
  require(
    logits.shape == (len(uids), task.num_outputs),
    f'logits of shape {list(logits.shape)}, where {len(uids)} uids and'
    f' {task.num_outputs} outputs of {task.name} make'
    f' {[len(uids), task.num_outputs]}',
  )
  require(
    bool(teacher and teacher_digest),
    'say who the teacher is: give its name and a digest',
  )
  bad = logit_sets.first_not_finite(logits, None)
  if bad is not None:
    require(False, f'the logits of {uids[bad]} are not finite')
  target = logit_sets.LogitSet(
    Path(directory), fingerprint(task, rows, teacher, teacher_digest)
  )
  logit_sets.write(target, uids, logits, prepare.label_metadata(task))


def exists(target: logit_sets.LogitSet, rows: int) -> bool:
  """Whether a set has been written.

  Args:
    target: the set.
    rows: number of rows that it must hold, swapped copies included; its
      fingerprint does not tell.

  Raises:
    errors.UserError: the folder holds something else, or fewer rows.
  """
  if not shards.exists(target.directory):
    return False
  manifest = manifest_lib.read(target.directory)
  manifest_lib.check_fingerprint(
    target.directory, manifest, target.fingerprint, _OTHER_OUTPUT
  )
  held = sum(part.records for part in manifest.files)
  if held < rows:
    raise errors.UserError(
      f'{target.directory}: holds {held} rows and lacks the others of {rows},'
      f' such as those of config.data.swap; {_OTHER_OUTPUT}'
    )
  return True


def find_sets(
  directory: Path, task: str, split: str = 'train'
) -> dict[str, Path]:
  """Finds the sets of a task in a folder.

  Args:
    directory: `config.distill.logits`.
    task: name of the task.
    split: `task.UNLABELLED`, or the training split.

  Returns:
    Name of the teacher's folder -> set; the name is empty for `DIR/TASK`.

  Raises:
    errors.UserError: there is no set for the task, or both layouts are used.
  """
  directory = Path(directory)
  where = f'config.distill.logits: {directory}'
  if not directory.is_dir():
    raise errors.UserError(f'{where}: is no directory; give one of logit sets')
  name = logit_sets.folder_name(task, split)
  field = 'data.unlabelled' if split == task_lib.UNLABELLED else 'tasks'
  several = {
    path.name: path / name
    for path in sorted(directory.iterdir())
    if shards.exists(path / name)
  }
  # A stranger may have made the folder; sets are checked when they are opened.
  for path in several.values():
    files.check_link(path.parent)
  for teacher in several:
    if teacher.partition('.')[0] == task_lib.UNLABELLED:
      # Its keys in an identity would be those of a set of unlabelled rows.
      raise errors.UserError(
        f'{where}: {teacher}/ is named like the sets of rows without labels;'
        ' rename the folder of this teacher'
      )
  if not shards.exists(directory / name):
    if not several:
      raise errors.UserError(
        f'{where}: holds no set for {name}, neither as {name}/ nor as'
        f' TEACHER/{name}/; write one, or leave {task} out of config.{field}'
      )
    return several
  if several:
    raise errors.UserError(
      f'{where}: holds {name}/ and {min(several)}/{name}/; put the former'
      ' into a folder of its teacher, or remove either'
    )
  return {'': directory / name}


def open_set(
  directory: Path, features: shards.Columns, task: task_lib.Task
) -> logit_sets.LogitSet:
  """Checks that a set is for these rows, by its manifest alone.

  Args:
    directory: of the set.
    features: the student's training rows.
    task: the task.

  Raises:
    errors.UserError: the set is of other rows or labels, or of another
      vocabulary if its logits are of tokens; it holds a link, or is not
      external.
  """
  files.check_directory(Path(directory))
  manifest = manifest_lib.read(directory)
  teacher = manifest.fingerprint.get('teacher')
  if not (isinstance(teacher, dict) and teacher.keys() == {'name', 'digest'}):
    raise errors.UserError(
      f'{directory}: holds logits for the students of its own plan alone; write'
      ' others with --mode=label --output=DIR, and give DIR'
    )
  wanted = fingerprint(
    task,
    features.fingerprint['rows'],
    teacher['name'],
    teacher['digest'],
    features.fingerprint,
  )
  if task.kind.per_token and any(
    manifest.fingerprint.get(key) != wanted[key] for key in _TOKEN_KEYS
  ):
    raise errors.UserError(
      f'{directory}: {task.name} is a {task.kind.name} task, whose logits'
      " are of the teacher's tokens, and this plan has another vocabulary or"
      ' longest length; give it the same, or leave the task out'
    )
  manifest_lib.check_fingerprint(directory, manifest, wanted, _LABEL_AGAIN)
  return logit_sets.LogitSet(Path(directory), wanted, remedy=_LABEL_AGAIN)


def identity(
  directory: Path,
  features: shards.Columns,
  task: task_lib.Task,
  split: str = 'train',
) -> dict[str, str]:
  """Returns the part of a student's identity that external logits decide.

  Args:
    directory: `config.distill.logits`.
    features: the student's rows of the split.
    task: the task.
    split: see `find_sets`.

  Returns:
    Dotted keys -> name and digest of each teacher, digest of each set.

  Raises:
    errors.UserError: see `find_sets` and `open_set`.
  """
  result = {}
  for name, path in find_sets(directory, task.name, split).items():
    folder = logit_sets.folder_name(task.name, split)
    key = '.'.join(filter(None, ('logits', folder, name)))
    teacher = open_set(path, features, task).fingerprint['teacher']
    result[f'{key}.teacher'] = teacher['name']
    result[f'{key}.digest'] = teacher['digest']
    result[f'{key}.set'] = manifest_lib.read(path).digest
  return result
