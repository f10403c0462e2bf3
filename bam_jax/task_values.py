"""Reads fields of the configuration whose entries are TASK=VALUE."""

import math

from bam_jax import errors
from bam_jax import fields
from bam_jax import plain_text

# The entry of `sampling.loss_weights` for tasks that are not given a factor.
AUTO = 'auto'
_MOST_WEIGHT = 1e6  # of a task's loss


def unlabelled_files(config: fields.Config) -> dict[str, str]:
  """Returns a dict from task to file of unlabelled rows.

  Raises:
    errors.UserError: an entry of `config.data.unlabelled` is malformed.
  """
  result: dict[str, str] = {}
  for entry in config.data.unlabelled:
    where = f'config.data.unlabelled: {entry!r}'
    task, _, file = entry.partition('=')
    if plain_text.format_of(file) is None:
      raise errors.UserError(
        f'{where} is not TASK=FILE with a .tsv, .csv, .jsonl or .parquet file;'
        " give something like 'rte=more.jsonl'"
      )
    errors.raise_first(errors.find_unknown(where, [task], config.tasks))
    if task in result:
      raise errors.UserError(
        f'{where}: {task} already has {result[task]}; join the two files'
      )
    result[task] = file
  return result


def loss_weights(config: fields.Config) -> dict[str, float]:
  """Returns task -> factor of its loss, for the tasks that are given one.

  The entry `auto`, which concerns the other tasks, is left out.

  Raises:
    errors.UserError: an entry of `config.sampling.loss_weights` is malformed.
  """
  result: dict[str, float] = {}
  for entry in config.sampling.loss_weights:
    if entry == AUTO:
      continue
    where = f'config.sampling.loss_weights: {entry!r}'
    task, _, number = entry.partition('=')
    errors.raise_first(errors.find_unknown(where, [task], config.tasks))
    if task in result:
      raise errors.UserError(
        f'{where}: {task} already has {result[task]:g}; remove one of the two'
      )
    try:
      result[task] = plain_text.parse_number(number)
    except ValueError:
      result[task] = math.nan
    if not 0 < result[task] <= _MOST_WEIGHT:
      raise errors.UserError(
        f'{where} is neither auto nor TASK=NUMBER; give a number above 0 and'
        f" at most {_MOST_WEIGHT:g}, such as '{task}=8'"
      )
  return result


def thresholds(config: fields.Config) -> dict[str, str]:
  """Returns task -> the metric that its decision threshold maximizes.

  Raises:
    errors.UserError: an entry of `config.decisions.thresholds` is malformed.
  """
  result: dict[str, str] = {}
  for entry in config.decisions.thresholds:
    where = f'config.decisions.thresholds: {entry!r}'
    task, _, metric = entry.partition('=')
    if not metric:
      raise errors.UserError(
        f"{where} is not TASK=METRIC; give something like 'mrpc=f1'"
      )
    errors.raise_first(errors.find_unknown(where, [task], config.tasks))
    if task in result:
      raise errors.UserError(
        f'{where}: {task} already has {result[task]}; remove one of the two'
      )
    result[task] = metric
  return result
