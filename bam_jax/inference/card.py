"""Writes the model card of an exported model.

The card says how to use the model, what its outputs mean, how it was trained
and which scores it has.
"""

from collections.abc import Iterator, Mapping, Sequence
import functools
import itertools
import math
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jinja2

from bam_jax import escape
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.tasks import metrics
from bam_jax.tasks import task as task_lib

_MOST_TEACHERS = 12  # number of teachers named in a card


class Facts(NamedTuple):
  """Facts about a trained model for its card.

  Attributes:
    name: name of the plan.
    run: name of the run that trained the model.
    variant: variant of the run.
    teachers: names of the runs that taught the model; empty: the model was
      trained only on gold labels.
    encoder: description of the pretrained weights.
    note: the configuration's note for readers of the scores.
    max_length: maximum number of tokens per example in training.
    record: the record of the run, which has its scores, fitted temperatures and
      thresholds, package versions and the step at which it stopped early.
    baselines: task -> baseline -> dev split -> metric -> score, 0-100.
    weak: task -> explanation, for tasks on which the model is no better than a
      constant prediction.
  """

  name: str
  run: str
  variant: str
  teachers: Sequence[str]
  encoder: str
  note: str
  max_length: int
  record: Mapping[str, object]
  baselines: Mapping[str, Mapping[str, Mapping]] = MappingProxyType({})
  weak: Mapping[str, str] = MappingProxyType({})


def write(
  tasks: Sequence[task_lib.Task],
  facts: Facts,
  config: family.EncoderConfig,
  jax_version: str = '',
) -> str:
  """Returns the model card, in Markdown, of an exported directory.

  Args:
    tasks: the tasks whose heads were exported.
    facts: facts about the model.
    config: the encoder.
    jax_version: version of jax that exported a program; empty: the directory is
      for Hugging Face, and the card begins with metadata in YAML.
  """
  of = families.FAMILIES[config.family]

  def pool(x: str) -> str:
    return of.pooled.format(x=x, activation=config.pooler_activation)

  x = 'hidden.mean(1)' if config.pooling == 'mean' else 'hidden[:, 0]'
  vector = pool(x) or 'output.pooler_output'
  has_plain_mean = config.pooling == 'mean' and 'mean' not in of.pools
  of_tokens = [task.kind.name for task in tasks if task.kind.per_token]
  baselines = list(dict.fromkeys(itertools.chain(*facts.baselines.values())))
  return _template().render(
    tasks=tasks,
    facts=facts,
    training=_training(facts),
    baselines=baselines,
    scores=_scores(tasks, facts, baselines),
    decisions=_decisions(tasks, facts),
    is_mean=has_plain_mean and len(of_tokens) < len(tasks),
    model_type=of.name,
    no_pooler='' if of.pooled else ', add_pooling_layer=False',
    vector=x if has_plain_mean else vector,
    tokens=pool('hidden') if 'tokens' in of.pools else 'hidden',
    token_kinds=sorted(set(of_tokens)),
    jax_version=jax_version,
  )


@functools.cache
def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
  )
  environment.filters['markdown'] = escape.markdown
  environment.filters['paragraph'] = escape.paragraph
  return environment.get_template('card.md.j2')


def _scores(
  tasks: Sequence[task_lib.Task], facts: Facts, baselines: Sequence[str]
) -> Iterator[tuple[str, ...]]:
  """Yields table rows: task, dev split, metric, score, scores of the baselines.

  If the model's score is undefined, its cell has "undefined" and the reason.
  """
  for task in tasks:
    reasons = facts.record.get('undefined', {}).get(task.name, {})
    known = facts.baselines.get(task.name, {})
    for split, values in facts.record['scores'].get(task.name, {}).items():
      for metric, value in values.items():
        score = metrics.describe(value)
        why = reasons.get(split, {}).get(metric)
        if why and math.isnan(value):
          score += f': {why}'
        others = []
        for name in baselines:
          other = known.get(name, {}).get(split, {}).get(metric)
          others.append('' if other is None else metrics.describe(other))
        yield task.name, split, metric, score, *others


def _decisions(tasks: Sequence[task_lib.Task], facts: Facts) -> Iterator[str]:
  """Yields sentences on the effect of each task's temperature and threshold."""
  for task in tasks:
    found = facts.record.get('decisions', {}).get(task.name, {})
    if task.temperature != 1.0:
      before, after = found['calibration_error'], found['calibrated_error']
      yield (
        f'{task.name}: the expected calibration error is {100 * before:.1f}'
        f' percent, and {100 * after:.1f} with the temperature.'
      )
    if task.threshold is not None:
      before, after = (
        metrics.describe(found[key])
        for key in ('default_score', 'threshold_score')
      )
      yield (
        f'{task.name}: {found["wanted_threshold"]} is {before} at a probability'
        f' of 1/2, and {after} with the threshold.'
      )


def _training(facts: Facts) -> str:
  taught, method = 'on gold labels only', ''
  if facts.teachers:
    more = len(facts.teachers) - _MOST_TEACHERS
    shown = ', '.join(facts.teachers[:_MOST_TEACHERS])
    taught = f'with the teachers {shown}'
    taught += f' and {more} more' if more > 0 else ''
    method = (
      ' Method: Born-Again Multi-Task learning (Clark et al. 2019, arXiv'
      ' 1907.04829).'
    )
  return (
    f'Trained with BAM-JAX from {facts.encoder}: variant {facts.variant}, run'
    f' {facts.run}, {taught}.{method}'
  )
