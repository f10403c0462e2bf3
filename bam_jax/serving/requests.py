"""Parses the body of a prediction request."""

from collections.abc import Mapping
import difflib

from bam_jax import errors
from bam_jax import files
from bam_jax.data import unlabelled
from bam_jax.tasks import task as task_lib

# Task -> texts of one input, or the error that says why the task refuses it.
ByTask = dict[str, unlabelled.Texts | errors.UserError]


def parse(
  body: bytes,
  tasks: Mapping[str, task_lib.Task],
  max_inputs: int,
  max_characters: int,
) -> list[ByTask]:
  """Parses a request's body; returns a dict, task -> texts, for each input.

  The body is `{"inputs": [INPUT, ...], "task": NAME}`. An input is a text, a
  list of one or two texts, or an object with the fields that the task's kind
  reads. Without "task", an input is for every task that finds all its texts in
  the input; if the input is a list of two texts, a task that reads one text
  gets only the first text. If a task refuses an input, for example an empty
  text, the dict has an error in place of that task's texts. The other tasks and
  inputs are not affected.

  Args:
    body: the body, JSON in UTF-8.
    tasks: name -> task.
    max_inputs: highest number of inputs.
    max_characters: highest number of characters in all texts of one input.

  Raises:
    errors.UserError: the body is malformed or exceeds a limit, or all tasks
      refuse all inputs.
  """
  try:
    request = files.parse_json(body.decode())
  except ValueError as e:  # Includes UnicodeDecodeError.
    raise errors.UserError(
      f'the body is not a valid JSON object in UTF-8 ({e}); correct it'
    ) from None
  for key in request:
    if key not in ('inputs', 'task'):
      remedy = 'leave it out'
      if 'inputs' not in request:
        remedy = 'give the texts as "inputs"'
      if near := difflib.get_close_matches(key, ('inputs', 'task'), 1):
        remedy = f'did you mean "{near[0]}"?'
      raise errors.UserError(
        f'key {key!r} is neither "inputs" nor "task"; {remedy}'
      )
  inputs = request.get('inputs')
  if not isinstance(inputs, list) or not inputs:
    raise errors.UserError(
      '"inputs" is missing, empty or not a list; give a list of one or more'
      ' inputs'
    )
  if len(inputs) > max_inputs:
    raise errors.UserError(
      f'"inputs" has {len(inputs)} inputs; give at most {max_inputs}'
    )
  name = request.get('task')
  if name is not None and not (isinstance(name, str) and name in tasks):
    near = difflib.get_close_matches(str(name), tasks, 1, 0.0)[0]
    raise errors.UserError(
      f'"task": there is no task {name!r}; the nearest is {near!r}, and GET'
      ' /v1/tasks lists all'
    )
  result = []
  for number, item in enumerate(inputs):
    where = f'inputs[{number}]'
    if name is None:
      found = _read_all(tasks, item, where)
    else:
      found = {name: unlabelled.try_input(tasks[name], item, where)}
    length = max(
      (sum(map(len, t)) for t in found.values() if isinstance(t, tuple)),
      default=0,
    )
    if length > max_characters:
      raise errors.UserError(
        f'{where} has {length} characters; give at most {max_characters}'
      )
    result.append(found)
  given = [texts for found in result for texts in found.values()]
  if all(isinstance(texts, errors.UserError) for texts in given):
    raise given[0]
  return result


def _read_all(
  tasks: Mapping[str, task_lib.Task], item: object, where: str
) -> ByTask:
  """Returns task -> texts of an input, for all tasks that can read the input.

  A task that refuses the texts has an error in their place. If no task can read
  the input, the dict has an error for every task.
  """
  try:
    texts = [] if isinstance(item, dict) else unlabelled.listed(item, where)
  except errors.UserError as error:
    return dict.fromkeys(tasks, error)
  found = {}
  for name, task in tasks.items():
    count = len(task.kind.input_names(task)[-1])
    try:
      if isinstance(item, dict):
        if unlabelled.can_read(task, item):
          found[name] = unlabelled.texts_of(task, item, where)
      elif count <= len(texts):
        found[name] = unlabelled.unnamed_texts(task, texts[:count], where)
    except errors.UserError as error:
      found[name] = error
  if found:
    return found
  if len(tasks) == 1:
    (name,) = tasks
    return {name: unlabelled.try_input(tasks[name], item, where)}
  error = errors.UserError(
    f'{where}: no task reads it; GET /v1/tasks lists what each one reads'
  )
  return dict.fromkeys(tasks, error)
