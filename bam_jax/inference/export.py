"""Exports a trained model as Hugging Face directories.

DIR/TASK/  the model of one task, for the transformers class of the task's kind
DIR/all/   one encoder and pooler with the heads of all tasks, and `tasks.json`

transformers has no class with a head on the mean of an encoder's hidden states.
With mean pooling, a task's directory is therefore a sentence-transformers model
that returns the logits, and transformers can load only the encoder. For a
bi-encoder, the sentence-transformers model returns the vector of a single text.
Its head is in head.safetensors, and the code in the model card applies the head
to the vectors of two texts.

Weights are float32 safetensors. Every directory has a tokenizer and a model
card.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import json
from pathlib import Path

import numpy as np
import safetensors.numpy

from bam_jax import files
from bam_jax.data import features
from bam_jax.inference import card
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import huggingface
from bam_jax.modeling import pooling
from bam_jax.tasks import task as task_lib

ALL = 'all'
_WEIGHTS = 'model.safetensors'
_DENSE = f'{pooling.DENSE}/model.safetensors'
_PAIR_HEAD = 'head.safetensors'


def export(
  directory: Path,
  config: family.EncoderConfig,
  tokenizer: features.Tokenizer,
  params: Mapping[str, object],
  names: Sequence[str],
  tasks: task_lib.TaskTable,
  facts: card.Facts,
) -> None:
  """Writes one directory per task, and `all` if there are several tasks.

  Each directory is written completely or not at all.

  Args:
    directory: the parent directory; existing directories `TASK` and `all` in it
      are replaced.
    config: sizes of the encoder.
    tokenizer: the tokenizer that the model was trained with.
    params: {'encoder', 'pooler', 'heads'}, arrays on the host. The arrays of
      different layers are not stacked. `pooler` is missing if mean pooling
      needs none.
    names: names of the tasks to export.
    tasks: all tasks of the plan.
    facts: facts for the model cards.

  Raises:
    errors.UserError: a file can't be written.
  """
  of = families.FAMILIES[config.family]
  tensors = huggingface.save_params(
    {name: value for name, value in params.items() if name != 'heads'}, of
  )
  settings = huggingface.save_config(config, tokenizer.pad_id)
  models, all_heads = {}, {}
  for name in names:
    table = head_params(params['heads'], name, tasks)
    head = {
      'weight': np.ascontiguousarray(table['kernel'].T),
      'bias': np.ascontiguousarray(table['bias']),
    }
    all_heads |= {f'heads.{name}.{leaf}': x for leaf, x in head.items()}
    models[name] = _add_head(config, tensors, tasks[name], head)
  if len(names) > 1:
    models[ALL] = {_WEIGHTS: tensors | all_heads}, {}
  for name, (weights, more) in models.items():
    chosen = [tasks[each] for each in (names if name == ALL else [name])]
    values = {'config.json': settings | more}
    if name == ALL:
      values['tasks.json'] = define_outputs(chosen)
    if _has_plain_mean(config) or _PAIR_HEAD in weights:
      outputs = len(weights[_DENSE]['linear.bias']) if _DENSE in weights else 0
      values |= pooling.describe_mean(config.hidden_size, outputs)
    texts = {file: to_json(value) for file, value in values.items()}
    texts['README.md'] = card.write(chosen, facts, config)
    with new_directory(directory / name, texts) as unfinished:
      for file, arrays in weights.items():
        (unfinished / file).parent.mkdir(exist_ok=True)
        # transformers refuses a file without this metadata.
        safetensors.numpy.save_file(
          arrays, unfinished / file, metadata={'format': 'pt'}
        )
      choose_tokenizer(tokenizer, chosen).save(
        # With this length, `truncation=True` cuts texts as in training.
        unfinished,
        facts.max_length,
        config.type_vocab_size > 1,
      )


def _has_plain_mean(config: family.EncoderConfig) -> bool:
  """Whether a model's heads use mean pooling without a pooler layer."""
  pools = families.FAMILIES[config.family].pools
  return config.pooling == 'mean' and 'mean' not in pools


def _add_head(
  config: family.EncoderConfig,
  tensors: Mapping[str, np.ndarray],
  task: task_lib.Task,
  head: Mapping[str, np.ndarray],
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, object]]:
  """Returns the weights and settings to export for one task.

  Args:
    config: sizes of the encoder.
    tensors: name -> weights of encoder and pooler.
    task: the task.
    head: `weight` and `bias` of the task's head.

  Returns:
    File -> name -> weights; and fields to add to config.json.
  """
  of, kind = families.FAMILIES[config.family], task.kind
  outputs = kind.export_settings(task)
  if task.is_bi_encoder:
    encoder = {n: x for n, x in tensors.items() if not n.startswith('pooler.')}
    return {_WEIGHTS: encoder, _PAIR_HEAD: dict(head)}, outputs
  if _has_plain_mean(config) and not kind.per_token:
    dense = {f'linear.{leaf}': x for leaf, x in head.items()}
    return {_WEIGHTS: dict(tensors), _DENSE: dense}, outputs
  renamed = of.heads.get(kind.architecture, {})
  model = {}
  for name, tensor in tensors.items():
    module, _, leaf = name.rpartition('.')
    is_used = 'tokens' in of.pools or not kind.per_token
    if is_used or not module.startswith('pooler.'):
      module = renamed.get(module, of.tensor_prefix + module)
      model[f'{module}.{leaf}'] = tensor
  layer = renamed.get(kind.head_layer, kind.head_layer)
  model |= {f'{layer}.{leaf}': x for leaf, x in head.items()}
  architecture = {'architectures': [of.class_prefix + kind.architecture]}
  return {_WEIGHTS: model}, architecture | outputs


def choose_tokenizer(
  tokenizer: features.Tokenizer, tasks: Sequence[task_lib.Task]
) -> features.Tokenizer:
  """Returns the tokenizer to export with a model of some tasks.

  If all tasks read lists of words, the result is `tokenizer.for_words`.
  """
  of_words = all(task.kind.of_words for task in tasks)
  return tokenizer.for_words if of_words else tokenizer


def define_outputs(
  tasks: Sequence[task_lib.Task],
) -> dict[str, dict[str, object]]:
  """Returns task -> definition of its outputs, as JSON values."""
  return {
    task.name: {
      **task.definition(),
      'labels': list(task.exported_labels),
      'pair': task.is_pair,
      'outputs': task.num_outputs,
      'regression_head': task.kind.head,
      **({'decision': task.decision} if task.decision else {}),
    }
    for task in tasks
  }


def head_params(
  table: Mapping[str, np.ndarray], name: str, tasks: task_lib.TaskTable
) -> dict[str, np.ndarray]:
  """Returns kernel and bias of one task's head, without padding outputs.

  The kernel is [D, c], or [4 D, c] for a bi-encoder's head.
  """
  head, outputs = tasks.index[name], tasks[name].num_outputs
  kernel = table['kernel'][head, :, :outputs]
  if tasks[name].is_bi_encoder:
    number = tasks.bi_encoder_heads.index(head)
    more = table['pair_kernel'][number, :, :outputs]
    kernel = np.concatenate([kernel, more])
  return {'kernel': kernel, 'bias': table['bias'][head, :outputs]}


@contextlib.contextmanager
def new_directory(directory: Path, texts: Mapping[str, str]) -> Iterator[Path]:
  """Yields a new directory to fill; then adds text files and renames it.

  The directory replaces `directory` only when it is complete.

  Args:
    directory: final path of the new directory.
    texts: file name -> text of a file to add.
  """
  with files.new_directory(directory) as unfinished:
    yield unfinished
    for name, text in texts.items():
      (unfinished / name).parent.mkdir(exist_ok=True)
      (unfinished / name).write_text(text, 'utf-8', 'backslashreplace')


def to_json(value: object) -> str:
  """Converts a value to the indented JSON text of an exported file."""
  return json.dumps(value, indent=2, ensure_ascii=False) + '\n'
