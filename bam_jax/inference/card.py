"""Writes model cards: use, outputs, teachers and scores of an export."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import math
from pathlib import Path

import jinja2

from bam_jax import escape
from bam_jax.tasks import task as task_lib

_MOST_TEACHERS = 12  # named in a card


@dataclasses.dataclass(frozen=True)
class Facts:
  """Facts about a model for its card.

  Attributes:
    name: name of the plan.
    run: name of the run that trained it.
    variant: variant of the run.
    teachers: names of the runs that taught it; empty: only gold labels.
    encoder: description of the pretrained weights.
    note: the configuration's note, which readers of scores must know.
    versions: the packages that it was trained with, and their versions.
    scores: task -> dev split -> metric -> 0-100; nan where undefined.
    max_length: tokens of an example in training.
    undefined: task -> dev split -> metric -> why its score is undefined.
    baselines: task -> baseline -> dev split -> metric -> 0-100.
    weak: task -> why the model is no better than a constant prediction.
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
  baselines: Mapping[str, Mapping[str, Mapping]] = dataclasses.field(
    default_factory=dict
  )
  weak: Mapping[str, str] = dataclasses.field(default_factory=dict)


def write(
  tasks: Sequence[task_lib.Task],
  facts: Facts,
  jax_version: str = '',
  pooling: str = 'cls',
) -> str:
  """Returns the model card of an exported directory with some tasks' heads.

  The card is Markdown. `jax_version` is that of the jax that exported a
  program; it is empty for a Hugging Face directory, whose card has front
  matter.
  """
  per_token = [task.kind.per_token for task in tasks]
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
  )
  environment.filters['markdown'] = escape.markdown
  environment.filters['paragraph'] = escape.paragraph
  return environment.get_template('card.md.j2').render(
    tasks=tasks,
    facts=facts,
    training=_training(facts),
    baselines=_baselines(facts),
    scores=_scores(tasks, facts),
    is_mean=pooling == 'mean' and not all(per_token),
    jax_version=jax_version,
  )


def _baselines(facts: Facts) -> list[str]:
  """Returns the names of the baselines that any task has."""
  found = facts.baselines.values()
  return list(dict.fromkeys(name for scores in found for name in scores))


def _scores(
  tasks: Sequence[task_lib.Task], facts: Facts
) -> Iterator[tuple[str, ...]]:
  """Yields task, dev split, metric, score and those of the baselines.

  In place of an undefined score of the model is the reason.
  """
  for task in tasks:
    for split, values in facts.scores.get(task.name, {}).items():
      reasons = facts.undefined.get(task.name, {}).get(split, {})
      for metric, value in values.items():
        score = f'{value:.1f}'
        if math.isnan(value):
          why = reasons.get(metric)
          score = f'undefined: {why}' if why else 'undefined'
        others = []
        for name in _baselines(facts):
          known = facts.baselines.get(task.name, {}).get(name, {})
          other = known.get(split, {}).get(metric)
          others.append('' if other is None else f'{other:.1f}')
        others = ['undefined' if text == 'nan' else text for text in others]
        yield task.name, split, metric, score, *others


def _training(facts: Facts) -> str:
  taught = 'on gold labels alone'
  if facts.teachers:
    more = len(facts.teachers) - _MOST_TEACHERS
    shown = ', '.join(facts.teachers[:_MOST_TEACHERS])
    taught = f'by {shown}' + (f' and {more} more' if more > 0 else '')
  return (
    f'Born-Again Multi-Task learning (Clark et al. 2019, arXiv 1907.04829):'
    f' {facts.variant}, run {facts.run}, from {facts.encoder}, taught {taught}.'
  )
