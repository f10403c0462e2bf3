"""External logits: teacher logits from another experiment or program.

    DIR/TASK/            the set of a single teacher
    DIR/TEACHER/TASK/    the sets of several teachers, which are averaged

If students learn from rows without labels, each folder TASK has a second folder
TASK.unlabelled next to it.

Such sets can be written by a plan with another encoder or vocabulary
(`--mode=label`), or by any program that has the raw rows. This module does not
import JAX.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bam_jax import errors
from bam_jax import files
from bam_jax.data import manifest as manifest_lib
from bam_jax.data import prepare
from bam_jax.data import shards
from bam_jax.distillation import logit_sets
from bam_jax.tasks import task as task_lib

# More keys of the fingerprint, for logits per token or per window.
_TOKEN_KEYS = ('tokenizer', 'max_length')
# External scores are predictions, so no sigmoid is applied to them, whatever
# head computed them.
REGRESSION_HEAD = 'linear'

_OTHER_OUTPUT = 'write into another --output, or remove that folder'
_LABEL_AGAIN = 'write logits for the rows of this plan with the same teacher'


def fingerprint(
  task: task_lib.Task,
  rows: str,
  teacher: str,
  teacher_digest: str,
  tokens: Mapping[str, object] | None = None,
) -> dict[str, object]:
  """Returns the fingerprint of external logits on the rows of a task.

  Args:
    task: the task; its name, kind, labels in order, scale and the rest of
      `Task.definition` are part of the fingerprint.
    rows: `sources.rows_digest` of the raw training rows.
    teacher: description of the teacher.
    teacher_digest: distinguishes teachers with equal descriptions; for example
      the sha256 of the weights.
    tokens: fingerprint of the features; needed only with `task.has_windows`.
  """
  result = {
    'rows': rows,
    'task': task.definition(),
    'teacher': {'name': teacher, 'digest': teacher_digest},
  }
  if task.has_windows:
    result |= {key: tokens[key] for key in _TOKEN_KEYS}
  return result


def write(
  directory: Path,
  task: task_lib.Task,
  rows: str,
  uids: Sequence[str],
  logits: np.ndarray,
  teacher: str,
  teacher_digest: str,
) -> None:
  """Writes one teacher's external logits on one task, atomically.

  Args:
    directory: `DIR/TASK` or `DIR/TEACHER/TASK`; an existing set is replaced.
    task: a task with outputs per example, not per token or per window.
    rows: `sources.rows_digest` of all raw training rows.
    uids: uids of n training rows, including swapped copies (`…~swap`) if the
      student will be trained on such copies.
    logits: [n, c], c = `task.num_outputs`, in the order of `task.labels`,
      before softmax (classification) or sigmoid (multilabel). For regression,
      the predicted score scaled to 0-1: (score - low) / (high - low).
    teacher, teacher_digest: see `fingerprint`.

  Raises:
    errors.UserError: the arguments don't fit together, or the folder can't be
      written; an existing set is then kept.
  """
  logits = np.asarray(logits, np.float32)
  shape = [len(uids), task.num_outputs]
  wrong = ''
  if task.has_windows:
    wrong = (
      f"a {task.kind.name} task's logits"
      f' {"of windows " if task.windows else ""}depend on the vocabulary of the'
      ' teacher; write them with --mode=label instead'
    )
  elif list(logits.shape) != shape:
    wrong = (
      f'the logits have shape {list(logits.shape)}; give {shape}, for'
      f' {len(uids)} uids and {task.num_outputs} outputs of {task.name}'
    )
  elif not (teacher and teacher_digest):
    wrong = 'the teacher is not named; give its name and a digest'
  elif (bad := logit_sets.first_not_finite(logits, None)) is not None:
    wrong = f'the logits of {uids[bad]} are not finite; give finite ones'
  if wrong:
    raise errors.UserError(f'{directory}: {wrong}')
  target = logit_sets.LogitSet(
    Path(directory), fingerprint(task, rows, teacher, teacher_digest)
  )
  logit_sets.write(target, uids, logits, prepare.label_metadata(task))


def exists(target: logit_sets.LogitSet, rows: int) -> bool:
  """Returns whether a folder holds external logits; raises if they don't fit.

  The set must have at least `rows` rows. They are counted because the
  fingerprint does not show whether the set includes swapped copies.

  Raises:
    errors.UserError: the folder holds a set with another fingerprint, or with
      fewer rows.
  """
  if not shards.exists(target.directory):
    return False
  manifest = manifest_lib.read(target.directory)
  manifest_lib.check_fingerprint(
    target.directory, manifest, target.fingerprint, _OTHER_OUTPUT
  )
  if manifest.rows < rows:
    raise errors.UserError(
      f'{target.directory}: has {manifest.rows} rows, but needs {rows};'
      ' perhaps it was written without the copies that config.data.swap adds;'
      f' {_OTHER_OUTPUT}'
    )
  return True


def find_sets(
  directory: Path, task: str, split: str = 'train'
) -> dict[str, Path]:
  """Finds the external logits on a task in the folder `config.distill.logits`.

  Returns:
    A dict from the name of each teacher's folder to the path of the set. The
    key is empty for the layout `DIR/TASK`.

  Raises:
    errors.UserError: there is no set for the task, both layouts are used, or a
      teacher's folder is a link or has a reserved name.
  """
  directory = Path(directory)
  where = f'config.distill.logits: {directory}'
  if not directory.is_dir():
    raise errors.UserError(
      f'{where}: is not a directory; give a directory that holds logits'
    )
  name = logit_sets.folder_name(task, split)
  several = {
    path.name: path / name
    for path in sorted(directory.iterdir())
    if shards.exists(path / name)
  }
  for teacher, path in several.items():
    # The folder may come from an untrusted source, so it must not be a link.
    # `open_set` checks the set inside.
    files.check_link(path.parent)
    if teacher.partition('.')[0] == task_lib.UNLABELLED:
      # In `identity`, this teacher would get the same keys as a set of
      # unlabelled rows.
      raise errors.UserError(
        f'{where}: {teacher}/ is a reserved folder name, for unlabelled rows;'
        ' rename the folder of this teacher'
      )
  if shards.exists(directory / name):
    if several:
      raise errors.UserError(
        f'{where}: has both {name}/ and {min(several)}/{name}/; move {name}/'
        ' into a folder TEACHER/, or remove one of the two'
      )
    return {'': directory / name}
  if not several:
    field = 'data.unlabelled' if split == task_lib.UNLABELLED else 'tasks'
    raise errors.UserError(
      f'{where}: has no logits for {name}, neither in {name}/ nor in'
      f" TEACHER/{name}/; write them (--mode=label does so for a plan's own"
      f' teachers), or remove {task} from config.{field}'
    )
  return several


def open_set(
  directory: Path, features: shards.Columns, task: task_lib.Task
) -> logit_sets.LogitSet:
  """Opens external logits, after checking that they fit a task's rows.

  Raises:
    errors.UserError: the set was made for other rows or labels; the set holds
      a link; only the plan that wrote the set can use it; or the logits are
      per token or per window and were made with another vocabulary or
      `max_length`.
  """
  files.check_directory(Path(directory))
  manifest = manifest_lib.read(directory)
  teacher = manifest.fingerprint.get('teacher')
  if not (isinstance(teacher, dict) and teacher.keys() == {'name', 'digest'}):
    raise errors.UserError(
      f'{directory}: these logits can only be used by the plan that wrote'
      ' them; run that plan with --mode=label --output=DIR, and set'
      ' config.distill.logits=DIR'
    )
  wanted = fingerprint(
    task,
    features.fingerprint['rows'],
    teacher['name'],
    teacher['digest'],
    features.fingerprint,
  )
  if task.has_windows and any(
    manifest.fingerprint.get(key) != wanted[key] for key in _TOKEN_KEYS
  ):
    raise errors.UserError(
      f'{directory}: {task.name} is a {task.kind.name} task'
      f'{" of windows" if task.windows else ""}, whose teacher and student must'
      ' tokenize alike, but vocabulary or data.max_length differ;'
      " use the teacher's, or remove the task"
    )
  manifest_lib.check_fingerprint(directory, manifest, wanted, _LABEL_AGAIN)
  return logit_sets.LogitSet(Path(directory), wanted, remedy=_LABEL_AGAIN)


def identity(
  directory: Path,
  features: shards.Columns,
  task: task_lib.Task,
  split: str = 'train',
) -> dict[str, str]:
  """Returns the part of a student's identity that describes external logits.

  For each teacher, it has the teacher's name, the teacher's digest, and the
  digest of the teacher's set on the split, under dotted keys such as
  `logits.TASK.TEACHER.digest`.
  """
  result = {}
  folder = logit_sets.folder_name(task.name, split)
  for name, path in find_sets(directory, task.name, split).items():
    key = '.'.join(filter(None, ('logits', folder, name)))
    teacher = open_set(path, features, task).fingerprint['teacher']
    result[f'{key}.teacher'] = teacher['name']
    result[f'{key}.digest'] = teacher['digest']
    result[f'{key}.set'] = manifest_lib.read(path).digest
  return result
