"""Sends a run's metrics to Weights & Biases and MLflow, in addition to its log.

Each library decides by its own login, settings and environment variables, such
as WANDB_MODE or MLFLOW_TRACKING_URI, where results go and under which account.
A run that is stopped and resumed stays the same run in the tracker, because
trackers.json in the run's folder stores the run id of each tracker.
"""

from collections.abc import Mapping, Sequence
import json
import logging
import os
from pathlib import Path

from bam_jax import errors
from bam_jax import escape
from bam_jax import files

_IDS_FILE = 'trackers.json'
_MOST_PARAMS = 100  # MLflow's limit of parameters per request


class _Wandb:
  """A run in W&B, which receives the finite values of each logged step."""

  def __init__(
    self,
    project: str,
    run: str,
    settings: Mapping[str, object],
    run_id: str | None,
  ):
    import wandb

    self._run = wandb.init(
      project=os.environ.get('WANDB_PROJECT', project),
      name=run,
      id=run_id,
      resume='allow',
      config=dict(settings),
      reinit='create_new',  # Seeds trained at once have open runs at once.
      settings=wandb.Settings(silent=True, console='off'),
    )
    # A resumed run goes back to an earlier step, but W&B's own step cannot.
    self._run.define_metric('*', step_metric='step')
    self.run_id = self._run.id

  def write(
    self, step: int, seconds: float, values: Mapping[str, float]
  ) -> None:
    self._run.log({'step': step, '_timestamp': seconds, **values})

  def close(self, is_finished: bool) -> None:
    self._run.finish(exit_code=int(not is_finished))


class _MLflow:
  """A run in MLflow, which receives the finite values of each logged step."""

  def __init__(
    self,
    project: str,
    run: str,
    settings: Mapping[str, object],
    run_id: str | None,
  ):
    import mlflow
    from mlflow import entities

    self._entities = entities
    self._client = mlflow.MlflowClient()
    if run_id is not None:
      self._client.update_run(run_id, status='RUNNING')
      self.run_id = run_id
      return
    name = os.environ.get('MLFLOW_EXPERIMENT_NAME', project)
    # If several processes call this at once, only one creates the experiment.
    experiment = mlflow.set_experiment(name)
    created = self._client.create_run(experiment.experiment_id, run_name=run)
    self.run_id = created.info.run_id
    params = [entities.Param(k, str(value)) for k, value in settings.items()]
    for first in range(0, len(params), _MOST_PARAMS):
      some = params[first : first + _MOST_PARAMS]
      self._client.log_batch(self.run_id, params=some)

  def write(
    self, step: int, seconds: float, values: Mapping[str, float]
  ) -> None:
    when = int(seconds * 1000)
    self._client.log_batch(
      self.run_id,
      metrics=[
        self._entities.Metric(name, value, when, step)
        for name, value in values.items()
      ],
    )

  def close(self, is_finished: bool) -> None:
    status = 'FINISHED' if is_finished else 'KILLED'
    self._client.set_terminated(self.run_id, status)


# The keys are `fields.TRACKERS`. Each key is also the name of the tracker's
# package and of the extra of bam-jax that installs this package.
_TRACKERS = {'wandb': _Wandb, 'mlflow': _MLflow}


def check(names: Sequence[str]) -> None:
  """Raises a `UserError` if the package of a given tracker is not installed."""
  for name in names:
    errors.require('config.train.trackers', [name], name)


class Trackers:
  """Sends one run's metrics to its trackers.

  If a tracker no longer accepts metrics, a warning is logged, the tracker gets
  no more metrics, and training goes on. The run's log has all metrics anyway.
  """

  def __init__(
    self,
    names: Sequence[str],
    directory: Path,
    project: str,
    run: str,
    settings: Mapping[str, object],
  ):
    """Starts the run in each tracker, or resumes it.

    Args:
      names: names of the trackers.
      directory: the run's folder.
      project: name of the project in W&B and of the experiment in MLflow. The
        environment variables of these libraries take precedence.
      run: name of the run.
      settings: the run's configuration, flattened to values by name.

    Raises:
      errors.UserError: a tracker's package is missing, or the tracker refuses
        the run.
    """
    self._open: dict[str, _Wandb | _MLflow] = {}
    if not names:
      return
    check(names)
    path = directory / _IDS_FILE
    ids = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
      try:
        tracker = _TRACKERS[name](project, run, settings, ids.get(name))
      except Exception as e:
        raise errors.UserError(
          f'config.train.trackers={name}: {_one_line(e)}; set up'
          f' {name}, or leave it out'
        ) from e
      self._open[name] = tracker
      ids[name] = tracker.run_id
    directory.mkdir(parents=True, exist_ok=True)
    files.write_text(path, json.dumps(ids))

  def write(
    self, step: int, seconds: float, values: Mapping[str, float]
  ) -> None:
    """Sends the finite values of a step; `seconds` is a unix time."""
    for name in [*self._open]:
      try:
        self._open[name].write(step, seconds, values)
      except Exception as e:
        _warn(name, e)
        del self._open[name]

  def close(self, is_finished: bool) -> None:
    """Ends the run in all trackers, as finished or interrupted."""
    for name, tracker in self._open.items():
      try:
        tracker.close(is_finished)
      except Exception as e:
        _warn(name, e)


def _warn(name: str, error: Exception) -> None:
  logging.warning(
    'config.train.trackers=%s: failed and receives no more metrics (%s);'
    ' metrics.jsonl has all of them',
    *(name, _one_line(error)),
  )


def _one_line(error: Exception) -> str:
  return escape.one_line(error).rstrip('.')
