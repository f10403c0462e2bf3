"""The card of an exported model: what it is, what taught it, its scores."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from bam_jax.tasks import kinds
from bam_jax.tasks import task as task_lib

_USE = """\
```python
from transformers import {auto_class}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained('.')
model = {auto_class}.from_pretrained('.')
logits = model(**tokenizer({texts}, return_tensors='pt')).logits
```
"""

_OF_TOKENS = ', those of tasks of tokens to its last hidden states'


@dataclasses.dataclass(frozen=True)
class Facts:
  """What a card says beside the tasks.

  Attributes:
    name: of the plan.
    run: group of runs that the model is of.
    variant: how it was trained.
    teachers: names of the runs that taught it; empty: gold labels alone.
    encoder: what it started from.
    note: what a reader must know, as in the report.
    versions: of the packages it was trained with.
    scores: task -> dev split -> metric -> 0-100.
    max_length: tokens of an example in training.
    regression_head: `sigmoid` or `linear`.
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
  regression_head: str


def of_tasks(tasks: Sequence[task_lib.Task], facts: Facts) -> str:
  """The card as Markdown, with the hub's front matter.

  Args:
    tasks: those whose heads the directory holds.
    facts: of the model.
  """
  names = ', '.join(task.name for task in tasks)
  heads = [kinds.of(task).export(task) for task in tasks]
  lines = [
    '---',
    'library_name: transformers',
    f'pipeline_tag: {heads[0].pipeline}',
    'tags: [bert, multi-task, knowledge-distillation, bam-jax]',
    '---',
    '',
    f'# {facts.name}: {names}',
    '',
    _training(facts),
  ]
  if facts.note:
    lines += ['', facts.note]
  lines += ['', '## Outputs', '']
  lines += [
    f'- {task.name}: {kinds.of(task).meaning(task, facts.regression_head)}'
    for task in tasks
  ]
  if len(tasks) == 1:
    texts = "'a text'" + (", 'another one'" if tasks[0].is_pair else '')
    auto_class = heads[0].auto_class
    lines += ['', _USE.format(texts=texts, auto_class=auto_class).rstrip()]
  else:
    lines += [
      '',
      '`heads.TASK.weight` and `heads.TASK.bias` of `model.safetensors` are'
      ' applied to the pooled vector of `BertModel`'
      + _OF_TOKENS * any(not head.is_pooled for head in heads)
      + '; `tasks.json` says what the outputs mean.',
    ]
  lines += ['', '## Scores', '']
  lines += ['| task | dev split | metric | score |', '|---|---|---|--:|']
  lines += [
    f'| {task.name} | {split} | {metric} | {value:.1f} |'
    for task in tasks
    for split, values in facts.scores.get(task.name, {}).items()
    for metric, value in values.items()
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
    f'Trained with {facts.versions}.',
  ]
  return '\n'.join(lines) + '\n'


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
