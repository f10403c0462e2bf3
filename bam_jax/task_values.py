"""Parses configuration fields whose entries are TASK=VALUE."""

from collections.abc import Callable, Iterable

from bam_jax import errors
from bam_jax import fields
from bam_jax import plain_text

# The entry of `sampling.loss_weights` for all tasks without a given factor.
AUTO = 'auto'
_MOST_WEIGHT = 1e6  # highest factor of a task's loss


def unlabelled_files(config: fields.Config) -> dict[str, str]:
  """Returns task -> file of unlabelled rows, from `config.data.unlabelled`."""
  return _read(
    *(config, 'data.unlabelled', config.data.unlabelled, plain_text.format_of),
    fault='is not TASK=FILE with a .tsv, .csv, .jsonl or .parquet file; give'
    " something like 'rte=more.jsonl'",
    remedy='join the two files',
  )


def loss_weights(config: fields.Config) -> dict[str, float]:
  """Returns task -> loss factor, from `config.sampling.loss_weights`.

  The entry `auto`, which is for tasks without a given factor, is ignored.
  """
  given = (entry for entry in config.sampling.loss_weights if entry != AUTO)
  found = _read(
    *(config, 'sampling.loss_weights', given, _is_weight),
    fault='is neither auto nor TASK=NUMBER; give a number above 0 and at most'
    f" {_MOST_WEIGHT:g}, such as 'rte=8'",
  )
  return {task: float(number) for task, number in found.items()}


def thresholds(config: fields.Config) -> dict[str, str]:
  """Returns task -> metric, from `config.decisions.thresholds`.

  The task's decision threshold is chosen to maximize the metric.
  """
  return _read(
    *(config, 'decisions.thresholds', config.decisions.thresholds, bool),
    fault="is not TASK=METRIC; give something like 'mrpc=f1'",
  )


def _is_weight(text: str) -> bool:
  try:
    return 0 < plain_text.parse_number(text) <= _MOST_WEIGHT
  except ValueError:
    return False


def _read(
  config: fields.Config,
  field: str,
  entries: Iterable[str],
  is_value: Callable[[str], object],
  fault: str,
  remedy: str = 'remove one of the two',
) -> dict[str, str]:
  """Parses the TASK=VALUE entries of a field; returns task -> value.

  Args:
    config: the configuration.
    field: dotted name of the field.
    entries: the entries.
    is_value: function that returns whether a text is a valid value.
    fault: error message for an entry without a valid value.
    remedy: end of the error message if two entries have the same task.

  Raises:
    errors.UserError: an entry has an unknown task or no valid value, or two
      entries have the same task.
  """
  result: dict[str, str] = {}
  for entry in entries:
    where = f'config.{field}: {entry!r}'
    task, _, value = entry.partition('=')
    if not is_value(value):
      raise errors.UserError(f'{where} {fault}')
    errors.raise_first(errors.find_unknown(where, [task], config.tasks))
    if task in result:
      raise errors.UserError(
        f'{where}: {task} already has {result[task]}; {remedy}'
      )
    result[task] = value
  return result
