"""The Python API: trains on tasks that are given as frames, lists or files.

  result = bam_jax.fit(tasks, init='google-bert/bert-base-uncased', workdir=DIR)
  result.student().predict(['My printer is on fire.'], task='urgency')

`api_tasks` defines the tasks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import html
import os
from pathlib import Path
import signal
import threading

import ml_collections
import pandas as pd

from bam_jax import api_tasks
from bam_jax import config as config_lib
from bam_jax import errors
from bam_jax import files
from bam_jax.configs import recommended
from bam_jax.data import jsonl
from bam_jax.data import registry
from bam_jax.data import unlabelled
from bam_jax.experiments import export as export_lib
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import predict
from bam_jax.experiments import report as report_lib
from bam_jax.experiments import runs as runs_lib
from bam_jax.experiments import train
from bam_jax.inference import model as model_lib
from bam_jax.runtime import logs
from bam_jax.runtime import preemption
from bam_jax.storage import lock as lock_lib
from bam_jax.storage import stores
from bam_jax.training import setup

Task = api_tasks.Task
UserError = errors.UserError


def fit(
  tasks: Mapping[str, Task],
  *,
  init: str | os.PathLike,
  workdir: str | os.PathLike,
  config: ml_collections.ConfigDict | None = None,
  overrides: Mapping[str, object] | None = None,
) -> 'Result':
  """Trains teachers and students and writes the report, like `--mode=run`.

  Finished parts in the work directory are kept. After an interruption, the same
  call continues; if everything is finished, it returns soon.

  Args:
    tasks: name -> task.
    init: pretrained encoder, like `config.model.init`: a directory or a name on
      the hub; empty: random weights of the size `config.model.arch`.
    workdir: local directory for all results.
    config: base settings, which may have additional tasks; None: the settings
      of `configs/recommended.py`.
    overrides: field -> value, such as `{'multi.epochs': 3.0}` for
      `--config.multi.epochs=3.0`.

  Raises:
    UserError: a mistake that the command line would report in one line.
    KeyboardInterrupt: the call was interrupted, and its state is saved.
  """
  for name, value, kinds, wanted in (
    ('tasks', tasks, Mapping, 'a dict of name -> bam_jax.Task'),
    ('init', init, str | os.PathLike, "a folder, a name on the hub or ''"),
    ('config', config, ml_collections.ConfigDict | None, 'a ConfigDict'),
    ('overrides', overrides, Mapping | None, 'a dict of field -> value'),
  ):
    _check_type(name, value, kinds, wanted)
  workdir = Path(_check_local(workdir))
  if config is None:
    config = recommended.get_config()
    config.name = workdir.name
  values = config.to_dict()
  values['model']['init'] = os.fspath(init)
  written = api_tasks.add_tasks(values, tasks, workdir / 'data')
  _override(values, overrides or {})
  wanted = config_lib.from_dict(values)
  registry.resolve(wanted)  # Checks task names before they name folders.
  with _working(workdir), _interruptible() as preemption_signal:
    for path, text in written.items():
      files.write_text(path, text)
    setup.configure_jax(wanted, workdir)
    setup.start_devices()
    plan = plan_lib.make_plan(
      wanted, workdir, preemption_signal, reads_rows=True
    )
    train.run(plan)
  return Result(plan)


def load(workdir: str | os.PathLike) -> 'Result':
  """Opens the results in a work directory of `fit` or of the command line.

  The settings are those of the last command that changed the directory.

  Raises:
    UserError: nothing was trained in `workdir`.
  """
  workdir = Path(_check_local(workdir))
  config = config_lib.load(workdir)
  with _working(workdir):
    setup.configure_jax(config, workdir)
    return Result(plan_lib.make_plan(config, workdir))


class Result:
  """The results in a work directory: scores, a report and models."""

  def __init__(self, plan: plan_lib.Plan):
    self._plan = plan
    self.workdir = plan.workspace.root

  def __repr__(self) -> str:
    return f'<bam_jax result in {self.workdir}>'

  @property
  def scores(self) -> pd.DataFrame:
    """All scores, one per row: variant, seed, task, split, metric, value."""
    self.report()
    return pd.read_csv(self.workdir / 'scores.csv', dtype={'seed': 'Int64'})

  def report(self) -> 'Report':
    """Returns the report, which a notebook can show; writes it if missing."""
    path = self.workdir / 'report.html'
    if not path.exists():
      with _working(self.workdir):
        report_lib.report(self._plan)
    return Report(path)

  def student(self, seed: int | None = None) -> 'Model':
    """Returns the last variant's model for a seed, by default the first one."""
    if seed is None:
      return self.model(None)
    variant = self._plan.config.variants[-1]
    return self.model(runs_lib.group_name(variant, seed))

  def model(self, group: str | None) -> 'Model':
    """Returns the model of a group of runs, `VARIANT-sSEED`, like `--group`.

    If `group` is None, it is the last variant with the first seed.

    Raises:
      UserError: there is no such group, or it is not finished.
    """
    with _working(self.workdir):
      setup.start_devices()
      group, _ = self._plan.find_group(group)
      return Model(self._plan, group, predict.load_model(self._plan, group))


class Report(os.PathLike):
  """The path of a report; a notebook shows the report itself."""

  def __init__(self, path: Path):
    self.path = path

  def __fspath__(self) -> str:
    return str(self.path)

  __str__ = __repr__ = __fspath__

  def _repr_html_(self) -> str:
    page = html.escape(self.path.read_text('utf-8'))
    return f'<iframe srcdoc="{page}" width="100%" height="700"></iframe>'


class Model:
  """Predicts with the models of a group of runs; not thread-safe.

  Attributes:
    group: name of the group, `VARIANT-sSEED`.
    tasks: names of the tasks that the model predicts.
  """

  def __init__(self, plan: plan_lib.Plan, group: str, model: model_lib.Model):
    self._plan, self._model = plan, model
    self.group, self.tasks = group, tuple(model.tasks)

  def __repr__(self) -> str:
    return f'<bam_jax model {self.group} of {", ".join(self.tasks)}>'

  def predict(
    self,
    inputs: pd.DataFrame
    | Sequence[str | Sequence[str] | Mapping[str, object]]
    | os.PathLike,
    task: str | None = None,
  ) -> pd.DataFrame:
    """Returns a frame with one prediction per input, in order.

    The columns are the fields that `--mode=predict` writes as JSON: `label`,
    `score`, `labels`, `tags`, `spans`, or `answer`, `start` and `end`; one
    `probabilities.LABEL` for each label; and `truncated`. If the task cannot
    read an input, such as an empty text, the reason is in the column `error`,
    which exists only if there is such an input.

    Args:
      inputs: a frame, in which case the result has the same index; a list of
        texts, pairs or dicts; or the path of a file. Columns and dict keys are
        named as the task declares them, or as in docs/guides/serve.md.
      task: name of the task; None: the model's only task.

    Raises:
      UserError: there is no such task, or the task can read none of the inputs.
    """
    declared = self._model.tasks[task := self._model.choose_task(task, 'task')]
    if isinstance(inputs, os.PathLike):
      with unlabelled.open_rows(os.fspath(inputs), declared) as rows:
        return _frame(self._model.predict_texts(task, rows.texts))
    index = getattr(inputs, 'index', None)
    if isinstance(inputs, pd.DataFrame | Mapping):
      lines = (
        api_tasks.to_json_lines(inputs, 'inputs').removesuffix('\n').split('\n')
      )
      inputs = [jsonl.parse(line, 'inputs') for line in lines]
    elif isinstance(inputs, str) or not len(inputs):
      raise errors.UserError(
        'inputs: give a frame, a list of one or more, or a pathlib.Path of a'
        ' file'
      )
    texts = [
      unlabelled.try_input(declared, item, f'inputs[{number}]')
      for number, item in enumerate(inputs)
    ]
    found = self._model.predict_texts(task, texts)
    return _frame(found, index if isinstance(index, pd.Index) else None)

  def export(self, folder: str | os.PathLike, format: str = 'hf') -> Path:
    """Exports the model for use without this package, like `--mode=export`.

    Args:
      folder: parent folder of the exported directories; this folder is
        returned. With `hf`, it gets `TASK/` for each task, and `all/` if there
        are several tasks; with `stablehlo`, `TASK/` or, for several tasks, only
        `all/`.
      format: `hf` for transformers, or `stablehlo`.
    """
    errors.raise_first(
      errors.find_unknown('format', [format], export_lib.FORMS)
    )
    with _working(self._plan.workspace.root):
      export_lib.export(self._plan, self.group, format, Path(folder))
    return Path(folder)


def _frame(
  results: Iterable[model_lib.Result], index: pd.Index | None = None
) -> pd.DataFrame:
  """Returns predictions as a frame, with one probability column per label."""
  rows = []
  for result in results:
    said = result.as_json()
    probabilities = said.pop('probabilities', {})
    rows.append(
      said | {f'probabilities.{k}': p for k, p in probabilities.items()}
    )
  # With dtype object, integers in a column with None stay integers.
  return pd.DataFrame(rows, index, dtype=object).infer_objects()


def _check_local(workdir: str | os.PathLike) -> str:
  """Returns `workdir` as a string; raises a `UserError` for an object store."""
  _check_type('workdir', workdir, str | os.PathLike, 'a folder')
  place = os.fspath(workdir)
  if stores.is_url(place):
    raise errors.UserError(
      f'workdir={place}: is in an object store, where only the command line'
      ' works; give a local directory'
    )
  return place


def _check_type(name: str, value: object, kinds: object, wanted: str) -> None:
  if not isinstance(value, kinds):
    raise errors.UserError(
      f'{name}: a {type(value).__name__} is given; give {wanted}'
    )


def _override(values: dict, overrides: Mapping[str, object]) -> None:
  """Sets fields with dotted names in a config that is given as nested dicts."""
  for field, value in overrides.items():
    *groups, name = field.removeprefix('config.').split('.')
    group = values
    for each in groups:
      group = group.setdefault(each, {})
      if not isinstance(group, dict):
        raise errors.UserError(
          f'config.{field}: {each} is not a group of fields; end the name there'
        )
    group[name] = value


@contextlib.contextmanager
def _working(workdir: Path) -> Iterator[None]:
  """Locks a work directory, shows the log, turns an OSError into UserError."""
  with (
    logs.shown(),
    lock_lib.lock_directory(workdir),
    files.report_errors(workdir),
  ):
    yield


@contextlib.contextmanager
def _interruptible() -> Iterator[preemption.Signal]:
  """Yields a preemption signal; raises KeyboardInterrupt after Ctrl-C."""
  preemption_signal = preemption.Signal(restores=True)
  # Python allows signal handlers only in the main thread.
  is_main = threading.current_thread() is threading.main_thread()
  with preemption_signal if is_main else contextlib.nullcontext():
    try:
      yield preemption_signal
      preemption_signal.check()
    except preemption.Preempted as e:
      if e.number == signal.SIGINT:
        raise KeyboardInterrupt(
          'interrupted; the same call continues'
        ) from None
      raise
