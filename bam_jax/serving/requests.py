"""What a request's body asks for."""

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
  most: int,
  most_characters: int,
) -> list[dict[str, unlabelled.Texts]]:
  """The texts of each input, by the tasks that are to read them.

  `{"inputs": [INPUT, ...], "task": NAME}`, where an input is a text, a list of
  one or two, or an object with the names that the task's kind reads. Without
  `task` every task reads the inputs that have what it reads; one of single
  texts reads the first of two.

  Args:
    body: JSON in UTF-8.
    tasks: by name.
    most: inputs.
    most_characters: of the texts of an input.

  Raises:
    errors.UserError: it is no such body.
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
  if len(inputs) > most:
    raise errors.UserError(
      f'"inputs" has {len(inputs)}; give at most {most} a request'
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
    if length > most_characters:
      raise errors.UserError(
        f'{where} has {length} characters; give at most {most_characters}'
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
  """An input's texts for the task that was asked for."""
  if isinstance(item, dict):
    return unlabelled.texts_of(task, item, where)
  return unlabelled.unnamed_texts(task, _listed(item, where), where)


def _of_all(
  tasks: Mapping[str, task_lib.Task], item: object, where: str
) -> dict[str, unlabelled.Texts]:
  """An input's texts for each task that can read it."""
  if isinstance(item, dict):
    found = {
      name: unlabelled.texts_of(task, item, where)
      for name, task in tasks.items()
      if any(item.keys() >= set(names) for names in unlabelled.names_of(task))
    }
  else:
    texts = _listed(item, where)
    found = {
      name: unlabelled.unnamed_texts(task, texts[:count], where)
      for name, task in tasks.items()
      for count in [len(unlabelled.names_of(task)[-1])]
      if len(texts) >= count
    }
  if not found:
    raise errors.UserError(
      f'{where}: no task reads it; GET /v1/tasks lists what each one reads'
    )
  return found


def _listed(item: object, where: str) -> list[object]:
  """The one or two texts of an input that is no object."""
  texts = item if isinstance(item, list) else [item]
  if len(texts) not in (1, 2):
    raise errors.UserError(f'{where}: {len(texts)} texts; give one or two')
  return texts
