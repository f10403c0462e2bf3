"""Writes the logits of a Hugging Face classifier as the teacher of a student.

  pip install 'bam-jax[torch]'
  bam-jax-hf-teacher --config=minilm --config.data.dir=$GLUE_DIR --task=rte \\
      --model=MODEL --output=work/logits

Give the student's configuration: the command then reads the same rows as the
student, with the same uids. The model's own tokenizer truncates the texts.
MODEL is a directory, or a name on the hub, from which
AutoModelForSequenceClassification can load a model. To train the student on the
logits, give --config.distill.logits=work/logits; see
docs/guides/hf_teachers.md.

  --labels=entailment,not_entailment   labels in the order of the model's
                                       outputs, if the model's id2label does not
                                       have them
  --score=scale|unit|logit             regression: the output is a score on the
                                       task's own scale, a score on 0-1, or the
                                       logit of a score on 0-1
  --teacher=NAME                       name of this teacher, if the student has
                                       several teachers: the logits are written
                                       to OUTPUT/NAME/TASK
  --max_length=512 --batch_size=64 --device=cuda:1 --dtype=bfloat16

After a user's mistake, the exit status is 2, and one line says what to change.
"""

from collections.abc import Mapping, Sequence
import logging
from pathlib import Path
import sys

from absl import flags
import numpy as np

from bam_jax import command_line
from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax.data import labels
from bam_jax.data import registry
from bam_jax.data import sources
from bam_jax.distillation import external
from bam_jax.distillation import logit_sets
from bam_jax.distillation import quality
from bam_jax.hf_teacher import model as model_lib
from bam_jax.hf_teacher import outputs
from bam_jax.storage import raw_files
from bam_jax.storage import stores
from bam_jax.tasks import task as task_lib

_MODEL = flags.DEFINE_string(
  'model', None, 'A directory, or a name on the hub.'
)
_TEACHER = flags.DEFINE_string('teacher', '', 'Its name, one of several.')
_LABELS = flags.DEFINE_list('labels', None, "The task's, as the outputs go.")
_SCORE = flags.DEFINE_enum(
  'score', None, outputs.SCORES, 'Regression: what the output is.'
)
_MAX_LENGTH = flags.DEFINE_integer(
  'max_length', 512, 'Tokens a row at most; fewer where the model takes fewer.',
  lower_bound=8,
)  # fmt: skip
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 64, 'Rows.', lower_bound=1)
_DEVICE = flags.DEFINE_string(
  'device', None, 'Of torch. Default: a GPU, else the CPU.'
)
_DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ('float32', 'bfloat16', 'float16'), 'Of the weights.'
)
_USED = (command_line.CONFIG, command_line.TASK, command_line.OUTPUT)
# Option of Hugging Face's Trainer, or of `bam_jax.main` -> the option of this
# command.
TRAINER_NAMES = {
  'bf16': '--dtype=bfloat16',
  'bf16_full_eval': '--dtype=bfloat16',
  'eval_batch_size': '--batch_size',
  'fp16': '--dtype=float16',
  'fp16_full_eval': '--dtype=float16',
  'id2label': '--labels',
  'label2id': '--labels',
  'label_names': '--labels',
  'max_seq_length': '--max_length',
  'model_name': '--model',
  'model_name_or_path': '--model',
  'no_cuda': '--device=cpu',
  'output_dir': '--output',
  'per_device_eval_batch_size': '--batch_size',
  'task_name': '--task',
  'tokenizer_name': '--model, which has its tokenizer',
  'truncation': '--max_length',
  'use_cpu': '--device=cpu',
  'workdir': '--output',
}


def label(
  model: model_lib.Model,
  name: str,
  task: task_lib.Task,
  rows: Mapping[str, Sequence[task_lib.Example]],
  swap: bool,
  head: outputs.Head,
  directory: Path,
  batch_size: int,
) -> None:
  """Writes logit sets for the training and unlabelled rows of a task.

  Args:
    model: the teacher.
    name: the teacher's name, which the logit sets record.
    task: the task.
    rows: split -> examples.
    swap: whether to label each row a second time with its texts swapped.
    head: how outputs are converted to logits.
    directory: parent folder of the logit sets.
    batch_size: rows per batch.

  Raises:
    errors.UserError: a different logit set exists at the same path, an output
      is not finite, or a set cannot be written.
  """
  digest = model.digest(head.options())
  for split, examples in rows.items():
    target = directory / logit_sets.folder_name(task.name, split)
    rows_digest = sources.rows_digest(examples)
    fingerprint = external.fingerprint(task, rows_digest, name, digest)
    uids = [example.uid for example in examples]
    texts = [(example.text_a, example.text_b) for example in examples]
    if swap:
      uids += [f'{uid}{task_lib.SWAP_SUFFIX}' for uid in uids]
      texts += [(b, a) for a, b in texts]
    there = logit_sets.LogitSet(target, fingerprint)
    if external.exists(there, len(uids)):
      logging.info('%s: exists already', target)
      continue
    logits = head.logits(model.outputs(texts, batch_size))
    external.write(target, task, rows_digest, uids, logits, name, digest)
    logging.info('%s: %d rows', target, len(uids))
    if split == task.train_split:
      gold = [task.kind.encode_label(task, each.label) for each in examples]
      quality.log_agreement(
        str(target),
        task.with_head(external.REGRESSION_HEAD),
        logits[: len(gold)],
        np.array(gold),
      )


def parse(argv: list[str]) -> tuple[config_lib.Config, task_lib.Task]:
  """Parses and checks the flags; returns the configuration and the task.

  Raises:
    errors.UserError: an argument is missing or wrong.
  """
  rest = command_line.parse(argv, TRAINER_NAMES)
  command_line.refuse_others([flag.name for flag in _USED], TRAINER_NAMES)
  if len(rest) > 1:
    raise errors.UserError(
      f'{rest[1]}: no such argument; flags begin with --, see --help'
    )
  for flag in (*_USED, _MODEL):
    if not flag.value:
      raise errors.UserError(f'--{flag.name} is missing; see --help')
  config = config_lib.from_config_dict(command_line.CONFIG.value)
  if stores.is_url(config.data.dir) or stores.is_url(config.data.tfds_dir):
    config = raw_files.download_tables(config)
  tasks, name = registry.resolve(config), command_line.TASK.value
  tasks = labels.add(tasks, labels.find(tasks, config.data))
  if name not in tasks.names:
    raise errors.UserError(
      f'--task={name}: is none of {", ".join(tasks.names)}, the tasks of the'
      ' configuration'
    )
  _check_teacher(_TEACHER.value, tasks.names)
  task = tasks[name]
  outputs.check(task, _LABELS.value, _SCORE.value)
  return config, task


def _check_teacher(name: str, tasks: Sequence[str]) -> None:
  """Raises a `UserError` if a teacher's name is not usable as a folder name."""
  splits = ('train', task_lib.UNLABELLED)
  sets = {
    logit_sets.folder_name(task, split) for task in tasks for split in splits
  }
  is_folder = Path(name).name == name and not name.startswith('.')
  if (
    not is_folder
    or name in sets
    or name.partition('.')[0] == task_lib.UNLABELLED
  ):
    raise errors.UserError(
      f'--teacher={name}: is not a folder name, or is the name of a task; give'
      ' another, which becomes a folder below --output'
    )


def main(argv: list[str]) -> None:
  """Labels the rows of one task with one model.

  Raises:
    errors.UserError: the flags are wrong, the model or the rows cannot be
      loaded, or `label` raises this error.
  """
  config, task = parse(argv)
  errors.require(f'--model={_MODEL.value}', ['torch'], 'torch')
  rows = {
    split: list(sources.read(task, split, config.data))
    for split in (task.train_split, task_lib.UNLABELLED)
    if split in task.tables
  }
  model = model_lib.Model(
    _MODEL.value, _DEVICE.value, _DTYPE.value, _MAX_LENGTH.value
  )
  head = outputs.head(
    task, model.names, model.problem, _LABELS.value, _SCORE.value
  )
  if not model.has_padding and _BATCH_SIZE.value > 1:
    raise errors.UserError(
      f'--model={_MODEL.value}: its tokenizer has no padding token; give'
      ' --batch_size=1'
    )
  label(
    model,
    Path(_MODEL.value).name,
    task,
    rows,
    task.name in config.data.swap,
    head,
    Path(command_line.OUTPUT.value, _TEACHER.value),
    _BATCH_SIZE.value,
  )


def run_main() -> int:
  """Runs the command in `sys.argv`; returns its exit status."""
  command_line.configure_logging()
  if '--help' in sys.argv or '-h' in sys.argv:
    print(__doc__)
    return 0
  try:
    main(sys.argv)
  except errors.UserError as e:
    print(f'bam-jax-hf-teacher: {e}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(run_main())
