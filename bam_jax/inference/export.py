"""A trained model as Hugging Face directories.

DIR/TASK/  a task's own BertForSequenceClassification, or what its kind has in
           its place: what the AutoModel class of the same name loads
DIR/all/   encoder and pooler once, with every head, and `tasks.json`

Weights are float32 safetensors; every directory holds its tokenizer and a model
card.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import json
from pathlib import Path

import numpy as np
import safetensors.numpy

from bam_jax import files
from bam_jax.data import features
from bam_jax.inference import card
from bam_jax.modeling import bert
from bam_jax.modeling import huggingface
from bam_jax.tasks import task as task_lib

ALL = 'all'
_PREFIX = 'bert.'  # of encoder and pooler in a model with a head


def export(
  directory: Path,
  config: bert.BertConfig,
  tokenizer: features.Tokenizer,
  params: Mapping[str, object],
  heads: Mapping[str, int],
  tasks: task_lib.TaskTable,
  facts: card.Facts,
) -> None:
  """Writes the directories of one model, each whole or not at all.

  Args:
    directory: their parent; directories of the same names are replaced.
    config: of the encoder.
    tokenizer: the one it was trained with.
    params: {'encoder', 'pooler', 'heads'} of host arrays, single layers.
    heads: names of the tasks to export -> number of their head.
    tasks: of the plan.
    facts: for the model cards.

  Raises:
    errors.UserError: something can't be written.
  """
  body = huggingface.save_params(
    {name: params[name] for name in ('encoder', 'pooler')}
  )
  unpooled = huggingface.save_params({'encoder': params['encoder']})
  chosen = [tasks[name] for name in heads]
  classifiers = {
    task.name: _classifier(params['heads'], heads[task.name], task)
    for task in chosen
  }
  for task in chosen:
    head = task.kind.export(task)
    _write(
      directory / task.name,
      {
        **{
          _PREFIX + name: tensor
          for name, tensor in (body if head.is_pooled else unpooled).items()
        },
        **{
          f'{head.layer}.{name}': tensor
          for name, tensor in classifiers[task.name].items()
        },
      },
      {
        **huggingface.save_config(config, tokenizer.pad_id),
        'architectures': [head.architecture],
        'classifier_dropout': config.dropout_head,
        **head.settings,
      },
      tokenizer,
      config,
      {'README.md': card.of_tasks([task], facts)},
    )
  if len(chosen) > 1:
    _write(
      directory / ALL,
      {
        **body,
        **{
          f'heads.{task}.{name}': tensor
          for task, tensors in classifiers.items()
          for name, tensor in tensors.items()
        },
      },
      huggingface.save_config(config, tokenizer.pad_id),
      tokenizer,
      config,
      {
        'README.md': card.of_tasks(chosen, facts),
        'tasks.json': _json(definitions(chosen, facts.regression_head)),
      },
    )


def definitions(
  tasks: Sequence[task_lib.Task], regression_head: str
) -> dict[str, dict[str, object]]:
  """What the outputs of some tasks are, by name, as JSON."""
  return {
    task.name: {
      **task.definition(),
      'pair': task.is_pair,
      'outputs': task.num_outputs,
      'regression_head': regression_head if task.kind.has_scale else None,
    }
    for task in tasks
  }


def _classifier(
  table: Mapping[str, np.ndarray], head: int, task: task_lib.Task
) -> dict[str, np.ndarray]:
  """A task's part of the [T, D, C] and [T, C] table, as torch has it."""
  outputs = task.num_outputs
  return {
    'weight': np.ascontiguousarray(table['kernel'][head, :, :outputs].T),
    'bias': np.ascontiguousarray(table['bias'][head, :outputs]),
  }


def _write(
  directory: Path,
  tensors: Mapping[str, np.ndarray],
  config: Mapping[str, object],
  tokenizer: features.Tokenizer,
  sizes: bert.BertConfig,
  texts: Mapping[str, str],
) -> None:
  """Writes a directory, whole or not at all."""
  with files.new_directory(directory) as unfinished:
    safetensors.numpy.save_file(
      dict(tensors),
      unfinished / 'model.safetensors',
      # transformers refuses a file that does not say so.
      metadata={'format': 'pt'},
    )
    tokenizer.save(unfinished, sizes.max_positions)
    texts = {
      'config.json': _json(config),
      **texts,
    }
    for name, text in texts.items():
      (unfinished / name).write_text(text, 'utf-8', 'backslashreplace')


def _json(value: Mapping[str, object] | Sequence[object]) -> str:
  return json.dumps(value, indent=2, ensure_ascii=False) + '\n'
