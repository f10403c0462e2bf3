"""Teachers' logits from outside a plan: they know its rows, not its tokens.

    DIR/TASK/            the set of one teacher
    DIR/TEACHER/TASK/    sets of several, whose predictions are averaged

and TASK.unlabelled beside TASK where students learn of rows without labels.

Whoever has the rows can write such a set: a plan with another encoder or
vocabulary (`--mode=label`), or a program of another kind. Its fingerprint says
which rows and which labels it is for, and whose logits they are. Without JAX.
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

# What logits of tokens hang on besides: they are not of words.
_OF_TOKENS = ('tokenizer', 'max_length')
# How scores are read: they are predictions already, whatever head made them.
HEAD = 'linear'

_ELSEWHERE = 'write into another --output, or remove that folder'
_AGAIN = 'have its teacher label the rows of this plan'


def fingerprint(
  task: task_lib.Task,
  rows: str,
  teacher: str,
  teacher_digest: str,
  tokens: Mapping[str, object] | None = None,
) -> dict[str, object]:
  """What an outside set says of itself.

  Args:
    task: the task, whose name, kind, labels in order and scale it pins.
    rows: `sources.rows_digest` of the raw training rows.
    teacher: who it was, in words.
    teacher_digest: what tells it from others of those words, such as the
      sha256 of its weights.
    tokens: `tokenizer` and `max_length`, as the features' fingerprint has
      them, where the task's outputs are of tokens.
  """
  return {
    'rows': rows,
    'task': task.definition(),
    'teacher': {'name': teacher, 'digest': teacher_digest},
    **({key: tokens[key] for key in _OF_TOKENS} if task.kind.per_token else {}),
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
    directory: `DIR/TASK`, or `DIR/TEACHER/TASK`; replaced if it is a set.
    task: of which each example has outputs, not each token.
    rows: `sources.rows_digest` of all raw training rows.
    uids: of n training rows, those of swapped copies (`…~swap`) among them
      where the student is to be trained on these.
    logits: [n, c], c = `task.num_outputs`, in the order of `task.labels`,
      before softmax (classification) or sigmoid (multilabel); of a regression
      task the predicted score itself, (score - low) / (high - low).
    teacher: who it was, in words.
    teacher_digest: what tells it from others of those words.

  Raises:
    errors.UserError: the arguments don't go together, or the folder can't be
      written; what was there stays.
  """

  def require(condition: bool, message: str) -> None:
    if not condition:
      raise errors.UserError(f'{directory}: {message}')

  logits = np.asarray(logits, np.float32)
  require(
    not task.kind.per_token,
    f"a {task.kind} task's logits are of one vocabulary's tokens; only"
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
  finite = np.isfinite(logits).all(axis=-1)
  require(
    bool(finite.all()),
    f'the logits of {uids[int(np.argmin(finite))] if len(uids) else ""} are not'
    ' finite',
  )
  target = logit_sets.LogitSet(
    Path(directory), fingerprint(task, rows, teacher, teacher_digest)
  )
  logit_sets.write(target, uids, logits, prepare.label_metadata(task))


def is_there(target: logit_sets.LogitSet, rows: int) -> bool:
  """Whether a set is there already.

  Args:
    target: the set.
    rows: that it is to hold, swapped copies among them, of which its
      fingerprint says nothing.

  Raises:
    errors.UserError: one of something else, or of fewer rows, is in its place.
  """
  if not shards.exists(target.directory):
    return False
  manifest = manifest_lib.read(target.directory)
  manifest_lib.check_fingerprint(
    target.directory, manifest, target.fingerprint, _ELSEWHERE
  )
  held = sum(part.records for part in manifest.files)
  if held < rows:
    raise errors.UserError(
      f'{target.directory}: holds {held} rows and lacks the others of {rows},'
      f' such as those of config.data.swap; {_ELSEWHERE}'
    )
  return True


def find(directory: Path, task: str, split: str = 'train') -> dict[str, Path]:
  """The sets that a folder holds for a task.

  Args:
    directory: `config.distill.logits`.
    task: name of the task.
    split: `task.UNLABELLED`, or the training split.

  Returns:
    Name of the teacher's folder -> set; the name of the only one is empty
    where it is `DIR/TASK`.

  Raises:
    errors.UserError: there is no set for the task, or both layouts are there.
  """
  directory = Path(directory)
  where = f'config.distill.logits: {directory}'
  if not directory.is_dir():
    raise errors.UserError(f'{where}: is no directory; give one of logit sets')
  name = logit_sets.folder(task, split)
  field = 'data.unlabelled' if split == task_lib.UNLABELLED else 'tasks'
  several = {
    path.name: path / name
    for path in sorted(directory.iterdir())
    if shards.exists(path / name)
  }
  # It may come from a stranger; the set itself is checked where it is opened.
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


def opened(
  directory: Path, features: shards.Columns, task: task_lib.Task
) -> logit_sets.LogitSet:
  """A set that says that it is of these rows; reads its manifest alone.

  Args:
    directory: of the set.
    features: the student's training rows.
    task: the task.

  Raises:
    errors.UserError: it is of other rows or labels, or of another vocabulary
      where that matters, it holds a link, or it is no outside set.
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
    manifest.fingerprint.get(key) != wanted[key] for key in _OF_TOKENS
  ):
    raise errors.UserError(
      f'{directory}: {task.name} is a {task.kind} task, whose logits are of the'
      " teacher's tokens, and this plan has another vocabulary or longest"
      ' length; give it the same, or leave the task out'
    )
  manifest_lib.check_fingerprint(directory, manifest, wanted, _AGAIN)
  return logit_sets.LogitSet(Path(directory), wanted, remedy=_AGAIN)


def identity(
  directory: Path,
  features: shards.Columns,
  task: task_lib.Task,
  split: str = 'train',
) -> dict[str, str]:
  """What the outcome of a student hangs on, by dotted key.

  Args:
    directory: `config.distill.logits`.
    features: the student's rows of the split.
    task: the task.
    split: as for `find`.

  Raises:
    errors.UserError: as `find` and `opened`.
  """
  result = {}
  for name, path in find(directory, task.name, split).items():
    folder = logit_sets.folder(task.name, split)
    key = '.'.join(filter(None, ('logits', folder, name)))
    teacher = opened(path, features, task).fingerprint['teacher']
    result[f'{key}.teacher'] = teacher['name']
    result[f'{key}.digest'] = teacher['digest']
    result[f'{key}.set'] = manifest_lib.read(path).digest
  return result
