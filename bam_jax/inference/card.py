"""Writes model cards: use, outputs, teachers and scores of an export."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math

from bam_jax import escape
from bam_jax.tasks import task as task_lib

_USE = """\
```python
import torch
from transformers import {auto_class}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained('.')
model = {auto_class}.from_pretrained('.')
{usage}
```
"""

# All code that a program needs; the tests run it without this package.
_RUN = """\
```python
import json

import jax
from jax import export
import numpy as np
import tokenizers

about = json.load(open('model.json'))
tokenizer = tokenizers.Tokenizer.from_file('tokenizer.json')
tokenizer.enable_truncation(about['max_length'])
tokenizer.enable_padding(pad_to_multiple_of=16)
weights = jax.device_put(dict(np.load('weights.npz')))
program = open('program.jax_export', 'rb').read()
model = jax.jit(export.deserialize(program).call)

def predict(texts):
  rows = tokenizer.encode_batch(texts)
  parts = [[getattr(row, part) for row in rows]
           for part in ('ids', 'type_ids', 'attention_mask')]
  return model(weights, *(np.array(part, np.int32) for part in parts))

print(predict(['a text', ('a text', 'and another')]))
```
"""

_OF_TOKENS = ', those of tasks of tokens to its last hidden states'


@dataclasses.dataclass(frozen=True)
class Facts:
  """Facts about a model for its card.

  Attributes:
    name: of the plan.
    run: name of the run that trained it.
    variant: of the run.
    teachers: names of the runs that taught it; empty: only gold labels.
    encoder: description of the pretrained weights.
    note: the configuration's note, which readers of scores must know.
    versions: of the packages that it was trained with.
    scores: task -> dev split -> metric -> 0-100; nan where undefined.
    max_length: tokens of an example in training.
    undefined: task -> dev split -> metric -> why its score is undefined.
  """

  name: str
  run: str
  variant: str
  teachers: Sequence[str]
  encoder: str
  note: str
  versions: str
  scores: Mapping[str, Mapping[str, Mapping[str, float]]]
  max_length: int
  undefined: Mapping[str, Mapping[str, Mapping[str, str]]] = dataclasses.field(
    default_factory=dict
  )


def describe_tasks(tasks: Sequence[task_lib.Task], facts: Facts) -> str:
  """Card of a Hugging Face directory, with the hub's front matter.

  Args:
    tasks: those whose heads are in the directory.
    facts: of the model.
  """
  kind = tasks[0].kind
  front = [
    '---',
    'library_name: transformers',
    f'pipeline_tag: {kind.pipeline}',
    'tags: [bert, multi-task, knowledge-distillation, bam-jax]',
    '---',
    '',
    '',
  ]
  if len(tasks) == 1:
    use = _USE.format(
      auto_class=f'AutoModel{kind.architecture}', usage=kind.usage(tasks[0])
    )
    use = f'In this directory, with transformers 4 or 5:\n\n{use.rstrip()}'
  else:
    use = (
      '`heads.TASK.weight` and `heads.TASK.bias` of `model.safetensors` are'
      ' applied to the pooled vector of `BertModel`'
      + _OF_TOKENS * any(task.kind.per_token for task in tasks)
      + '; `tasks.json` says what the outputs mean.'
    )
  return '\n'.join(front) + _card(tasks, facts, [use])


def describe_program(
  tasks: Sequence[task_lib.Task], facts: Facts, version: str
) -> str:
  """Card of a directory of `inference.stablehlo`.

  Args:
    tasks: those whose outputs the program returns.
    facts: of the model.
    version: of the jax that exported it.
  """
  use = [
    '## Use',
    '',
    'In this directory, after `pip install jax numpy tokenizers flatbuffers`'
    ' (`jax[cuda13]` or `jax[tpu]` there), and nothing else:',
    '',
    _RUN.rstrip(),
    '',
    'Of every task come logits, one row a text'
    + ', or of tasks of tokens one a token'
    * any(task.kind.per_token for task in tasks)
    + '. `model.json` says what they are of, and which tasks were trained on'
    ' pairs. The program is compiled once for each number of texts and padded'
    ' length: keep both to few values. Texts may have up to `max_positions`'
    f' tokens; it was trained on up to {facts.max_length}. Of a pair that is'
    ' cut, the tokenizer may keep one token more of the longer text, and one'
    ' less of the other, than training did.',
    '',
    f'Exported by jax {version}, for CPU, CUDA and TPU, in float32. jax reads'
    ' what versions up to six months older have exported.',
  ]
  return _card(tasks, facts, use)


def _card(
  tasks: Sequence[task_lib.Task], facts: Facts, use: Sequence[str]
) -> str:
  """The parts that all cards share, around the lines on use."""
  names = ', '.join(task.name for task in tasks)
  title = escape.markdown(f'{facts.name}: {names}')
  lines = [f'# {title}', '', escape.markdown(_training(facts))]
  if facts.note:
    lines += ['', escape.paragraph(facts.note)]
  lines += ['', '## Outputs', '']
  lines += [
    f'- {escape.paragraph(task.name)}: {meaning}'
    for task in tasks
    for meaning in [task.kind.meaning(task)]
  ]
  lines += ['', *use, '', '## Scores', '']
  lines += ['| task | dev split | metric | score |', '|---|---|---|--:|']
  lines += [
    f'| {" | ".join(map(escape.markdown, cells))} |'
    for task in tasks
    for split, values in facts.scores.get(task.name, {}).items()
    for metric, value in values.items()
    for why in [facts.undefined.get(task.name, {}).get(split, {}).get(metric)]
    for cells in [(task.name, split, metric, _score(value, why))]
  ]
  lines += [
    '',
    'Of the last step, on the development sets, on which nothing but the'
    ' checkpoint exported may have been chosen.',
    '',
    '## Limits and licences',
    '',
    f'Trained on examples of at most {facts.max_length} tokens; longer ones'
    ' were cut. The licences of the pretrained weights and of each data set go'
    ' on to apply: this card does not know them.',
    '',
    f'Trained with {escape.markdown(facts.versions)}.',
  ]
  return '\n'.join(lines) + '\n'


def _score(value: float, why: str | None) -> str:
  """A score of the table, or the reason why it is undefined."""
  if not math.isnan(value):
    return f'{value:.1f}'
  return f'undefined: {why}' if why else 'undefined'


def _training(facts: Facts) -> str:
  taught = 'on gold labels alone'
  if facts.teachers:
    shown = ', '.join(facts.teachers[:12])
    more = len(facts.teachers) - 12
    taught = f'by {shown}' + (f' and {more} more' if more > 0 else '')
  return (
    f'Born-Again Multi-Task learning (Clark et al. 2019, arXiv 1907.04829):'
    f' {facts.variant}, run {facts.run}, from {facts.encoder}, taught {taught}.'
  )
