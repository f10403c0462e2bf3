"""Parses the body of a prediction request."""

from collections.abc import Mapping
import difflib
import json

from bam_jax import errors
from bam_jax import files
from bam_jax.data import unlabelled
from bam_jax.tasks import task as task_lib


def parse(
  body: bytes,
  tasks: Mapping[str, task_lib.Task],
  max_inputs: int,
  max_characters: int,
) -> list[dict[str, unlabelled.Texts]]:
  """Returns task -> texts for each input.

  The body is `{"inputs": [INPUT, ...], "task": NAME}`. An input is a text, a
  list of one or two texts, or an object with the names that the task's kind
  reads. Without `task`, every task reads each input that has what it needs; a
  task of single texts reads the first of two.

  Args:
    body: JSON in UTF-8.
    tasks: by name.
    max_inputs: inputs of a request.
    max_characters: characters of an input's texts.

  Raises:
    errors.UserError: the body is not like that.
  """
  try:
    request = files.parse_json(body.decode())
  except UnicodeDecodeError:
    raise errors.UserError('the body is no UTF-8') from None
  except json.JSONDecodeError as e:
    raise errors.UserError(
      f'the body is no JSON: {e.msg} at line {e.lineno}, column {e.colno}'
    ) from None
  except ValueError as e:
    raise errors.UserError(f'the body is no such object: {e}') from None
  for key in request:
    if key not in ('inputs', 'task'):
      raise errors.UserError(f'{key!r} is neither "inputs" nor "task"')
  inputs = request.get('inputs')
  if not isinstance(inputs, list) or not inputs:
    raise errors.UserError('"inputs" is to be a list of one or more')
  if len(inputs) > max_inputs:
    raise errors.UserError(
      f'"inputs" has {len(inputs)}; give at most {max_inputs} a request'
    )
  name = request.get('task')
  task = None if name is None else _find(name, tasks)
  result = []
  for number, item in enumerate(inputs):
    where = f'inputs[{number}]'
    if task is None:
      found = _of_all(tasks, item, where)
    else:
      found = {task.name: _texts(task, item, where)}
    length = max(sum(map(len, texts)) for texts in found.values())
    if length > max_characters:
      raise errors.UserError(
        f'{where} has {length} characters; give at most {max_characters}'
      )
    result.append(found)
  return result


def _find(name: object, tasks: Mapping[str, task_lib.Task]) -> task_lib.Task:
  if isinstance(name, str) and name in tasks:
    return tasks[name]
  near = difflib.get_close_matches(str(name), tasks, 1, 0.0)[0]
  raise errors.UserError(
    f'"task" is {name!r}, which is none; the nearest is {near!r}, and GET'
    ' /v1/tasks lists all'
  )


def _texts(task: task_lib.Task, item: object, where: str) -> unlabelled.Texts:
  """Texts of an input for the task of the request."""
  if isinstance(item, dict):
    return unlabelled.texts_of(task, item, where)
  return unlabelled.unnamed_texts(task, _listed(item, where), where)


def _of_all(
  tasks: Mapping[str, task_lib.Task], item: object, where: str
) -> dict[str, unlabelled.Texts]:
  """Task -> texts of an input, for each task that can read it."""
  if isinstance(item, dict):
    found = {
      name: unlabelled.texts_of(task, item, where)
      for name, task in tasks.items()
      if any(item.keys() >= set(names) for names in task.kind.input_names(task))
    }
  else:
    texts = _listed(item, where)
    found = {
      name: unlabelled.unnamed_texts(task, texts[:count], where)
      for name, task in tasks.items()
      for count in [len(task.kind.input_names(task)[-1])]
      if len(texts) >= count
    }
  if not found:
    raise errors.UserError(
      f'{where}: no task reads it; GET /v1/tasks lists what each one reads'
    )
  return found


def _listed(item: object, where: str) -> list[object]:
  """The one or two texts of an input that is not an object."""
  texts = item if isinstance(item, list) else [item]
  if len(texts) not in (1, 2):
    raise errors.UserError(f'{where}: {len(texts)} texts; give one or two')
  return texts
