"""Saves and restores a run's checkpoints; Orbax keeps the latest and the best.

The metadata of a checkpoint holds its score and a checksum of each array. Both
are compared with the files before a checkpoint is used.

A stopped run saves its current step without a score. If an evaluation was due,
the resumed run evaluates this step and stores the score in the next checkpoint.
So no checkpoint is written twice.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import json
import logging
import math
from pathlib import Path
import re
import shutil
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from bam_jax import errors
from bam_jax.core import step as step_lib
from bam_jax.runtime import peers
from bam_jax.runtime import processes
from bam_jax.training import checkpoint_scores as scores_lib
from bam_jax.training import checksums as checksums_lib

_CHECKSUMS = 'checksums'
_PARAMS = 'params'
# All fields of a TrainState except the parameters. Only a resumed run needs
# them.
_TRAIN = 'train'


class _Manager(ocp.CheckpointManager):
  """Orbax's checkpoint manager without its check for preemption.

  JAX has only one counter for agreeing on where to stop. In this project,
  `processes.AgreedSignal` sets it to the number of its check. Orbax would set
  the same counter to the training step.
  """

  def reached_preemption(self, step: int) -> bool:
    return False


class Checkpoints:
  """Context manager for the checkpoints of one run.

  Parameters and the rest of the state are separate items of a checkpoint, so
  that inference does not read the optimizer state and a finished run can delete
  the optimizer state.
  """

  def __init__(self, directory: Path):
    """Opens a folder of checkpoints; creates it if it is missing.

    Raises:
      errors.UserError: the folder can't be created, or a score is damaged.
    """
    self._directory = directory
    # Scores by step. Steps whose checkpoint has been deleted are included.
    self._scores: dict[int, float] = {}
    # Metrics that were not in the log yet when the latest checkpoint was saved.
    self.unlogged: list[list[float]] = []
    # Orbax logs every save, and each of its threads logs the errors that it
    # also raises. asyncio logs these errors once more.
    for name in ('absl', 'asyncio'):
      logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
      directory.mkdir(parents=True, exist_ok=True)
    except OSError as e:
      raise errors.UserError(
        f'{directory}: {e.strerror}; choose a --workdir that can be written'
      ) from e
    with _reading(directory):
      self._manager = _Manager(
        directory.absolute(),
        item_handlers={
          item: ocp.StandardCheckpointHandler() for item in (_PARAMS, _TRAIN)
        },
        options=ocp.CheckpointManagerOptions(
          preservation_policy=policies.AnyPreservationPolicy(
            [policies.LatestN(1), scores_lib.PreserveBest(self._scores)]
          ),
          best_fn=lambda metrics: metrics[scores_lib.SCORE],
          step_prefix='step',
        ),
      )
    for step in self._manager.all_steps():
      self._read_score(step)
    if self.latest_step is not None:
      path = self._step_directory(self.latest_step)
      with _reading(path):
        self.unlogged, earlier = scores_lib.read_carried(
          scores_lib.read_metadata(path)
        )
      self._scores.update(earlier)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *unused_exception: object) -> None:
    with _writing(self._directory):
      self._manager.close()

  @property
  def latest_step(self) -> int | None:
    """The step of the latest checkpoint; None if there is no checkpoint."""
    return self._manager.latest_step()

  @property
  def best_step(self) -> int | None:
    """The step with the highest score, or the latest step if there is no score.

    If several steps have the highest score, it is the earliest of these steps.
    """
    return (
      scores_lib.best_step(self._scores, self._manager.all_steps())
      or self.latest_step
    )

  def is_out_of_patience(self, most_steps: int) -> bool:
    """Returns whether the best step was at least `most_steps` steps ago.

    A score equal to the best score is not an improvement.
    """
    return scores_lib.is_out_of_patience(
      self._scores, self.latest_step, most_steps
    )

  def score(self, step: int) -> float | None:
    """Returns the score of a step; None if the step has no score."""
    return self._scores.get(step)

  def add_score(self, score: float) -> None:
    """Sets the score of the latest step if it has no score yet; ignores nan."""
    if self.latest_step not in self._scores and not math.isnan(score):
      self._scores[self.latest_step] = score

  def has(self, step: int) -> bool:
    """Returns whether a step has a checkpoint."""
    return step in self._manager.all_steps()

  def save(
    self,
    state: step_lib.TrainState,
    score: float | None = None,
    with_optimizer: bool = True,
    unlogged: Sequence[Sequence[float]] = (),
  ) -> None:
    """Saves a state in the background; returns when its buffers may be reused.

    Args:
      state: train state of one run.
      score: score of the state on dev or held-out rows; nan counts as no score.
      with_optimizer: whether to save the optimizer state and the dropout key
        too. Only then can the run be resumed from this checkpoint.
      unlogged: metrics of earlier steps, if the log does not have them yet.

    Raises:
      errors.UserError: this or the previous checkpoint can't be written.
    """
    step = int(state.step)
    if score is not None and math.isnan(score):
      score = None
    trees = {_PARAMS: state.params}
    if with_optimizer:
      trees[_TRAIN] = _without_params(state)
    metadata = {
      _CHECKSUMS: {k: checksums_lib.checksums(t) for k, t in trees.items()},
      scores_lib.SCORE: score,
    }
    if self._scores or unlogged:
      metadata |= scores_lib.carry(unlogged, self._scores)
    with _writing(self._directory):
      if score is not None:
        self._scores[step] = score
      self._manager.save(
        step,
        args=ocp.args.Composite(
          **{k: ocp.args.StandardSave(tree) for k, tree in trees.items()}
        ),
        metrics=None if score is None else {scores_lib.SCORE: score},
        force=True,
        custom_metadata=metadata,
      )

  def restore(self, like: step_lib.TrainState) -> step_lib.TrainState:
    """Restores the latest state with the shapes and shardings of `like`.

    If a finished run has deleted its optimizer state, the result has the
    optimizer state and the dropout key of `like`.

    Raises:
      errors.UserError: the checkpoint is damaged or belongs to another model.
    """
    step = self._manager.latest_step()
    params = self.restore_params(like.params, step)
    if not (self._step_directory(step) / _TRAIN).is_dir():
      return like.replace(params=params, step=like.step + step)
    train = self._restore(step, _TRAIN, _without_params(like))
    return like.replace(params=params, **train)

  def restore_params(self, like: Any, step: int) -> Any:
    """Restores the parameters of a step.

    `like` is a tree of arrays, or of `jax.ShapeDtypeStruct`s with shardings.

    Raises:
      errors.UserError: the checkpoint is missing, is damaged or belongs to
        another model.
    """
    self._check_exists(step)
    return self._restore(step, _PARAMS, like)

  def _check_exists(self, step: int) -> None:
    if not self.has(step):
      raise errors.UserError(
        f'{self._step_directory(step)}: the checkpoint is missing; remove the'
        ' folder of the run, and the same command trains it again'
      )

  def param_shapes(self, step: int) -> dict[str, tuple[int, ...]]:
    """Returns a step's parameter shapes by path, such as `heads/kernel`."""
    self._check_exists(step)
    path = self._step_directory(step)
    with _reading(path):
      saved = self._manager.metadata(step).item_metadata[_PARAMS]
      return _shapes(saved or {})

  def _restore(self, step: int, item: str, like: Any) -> Any:
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    with _reading(self._step_directory(step)):
      metadata = self._manager.metadata(step)
      self._check_shapes(step, item, abstract, metadata.item_metadata[item])
      restored = self._manager.restore(
        step,
        args=ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)}),
      )[item]
      saved = (metadata.custom_metadata or {})[_CHECKSUMS][item]
      for name, value in checksums_lib.checksums(restored).items():
        if saved[name] != value:
          raise ValueError(f'{name} fails its checksum')
    return restored

  def _read_score(self, step: int) -> None:
    """Reads the score of a checkpoint; raises if the score is damaged.

    If a process was killed while it deleted an earlier checkpoint, some files
    of that checkpoint are missing. Such a checkpoint is skipped.
    """
    path, is_latest = self._step_directory(step), step == self.latest_step
    with _reading(path):
      try:
        metadata = scores_lib.read_metadata(path)
        score = scores_lib.read_score(path)
      except FileNotFoundError:
        if is_latest:
          raise
        return
      if scores_lib.SCORE in metadata and (is_latest or score is not None):
        # Compared as text, since a damaged score may be nan.
        recorded = json.dumps(metadata[scores_lib.SCORE])
        if json.dumps(score) != recorded:
          raise ValueError(f'its score is {score}, but {recorded} was saved')
      if score is not None:
        self._scores[step] = score

  def _check_shapes(
    self, step: int, item: str, abstract: Any, saved: Any
  ) -> None:
    path = self._step_directory(step)
    if saved is None:
      raise errors.UserError(
        f'{path}: the checkpoint has no {item}; remove this folder to'
        ' continue the run from an older checkpoint'
      )
    want, have = _shapes(abstract), _shapes(saved)
    for name in sorted(want | have):
      if want.get(name) != have.get(name):
        raise errors.UserError(
          f'{path}: {name} has shape {have.get(name)} in the checkpoint and'
          f' {want.get(name)} in the model; use the configuration that'
          ' the run was trained with'
        )

  def _step_directory(self, step: int) -> Path:
    return self._directory / f'step_{step}'

  def wait(self) -> None:
    """Waits until all saved checkpoints are on disk.

    Raises:
      errors.UserError: a checkpoint could not be written.
    """
    with _writing(self._directory):
      self._manager.wait_until_finished()

  def drop_optimizer(self) -> None:
    """Deletes what only a resumed run needs, such as the optimizer states."""
    self.wait()
    for step in self._manager.all_steps() if processes.is_first() else ():
      shutil.rmtree(self._step_directory(step) / _TRAIN, ignore_errors=True)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  named = checksums_lib.named_leaves(tree)
  return {name: tuple(leaf.shape) for name, leaf in named}


def _writing(directory: Path) -> contextlib.AbstractContextManager[None]:
  """Context manager that re-raises errors of writing as `UserError`.

  The error may come from an earlier save: Orbax saves in the background.
  """
  return _as_user_error(
    directory,
    'a checkpoint could not be written ({1}); free some space or grant write'
    ' permission, and run the same command to continue from the last one',
  )


def _reading(directory: Path) -> contextlib.AbstractContextManager[None]:
  return _as_user_error(
    directory,
    'is damaged ({0}: {1}); remove this folder to continue the run from an'
    ' older checkpoint; if the run was finished, remove the folder of the run'
    ' to train it again',
  )


# Details that TensorStore writes after the reason of an error. They are removed
# because a message with them is very long. When such a message was shortened,
# the reason itself was lost.
_DETAILS = re.compile(r' \[(source locations|tensorstore_\w+)=.*', re.DOTALL)


@contextlib.contextmanager
def _as_user_error(directory: Path, message: str) -> Iterator[None]:
  """Re-raises an Orbax error as a `UserError`.

  In `message`, {0} stands for the type of the Orbax error and {1} for its text.
  """
  try:
    yield
  except (errors.UserError, errors.RetryError):
    raise
  except Exception as e:
    if peers.is_peer_error(e):
      raise
    reason = _DETAILS.sub('', str(e)).replace(f'{directory}/', '')
    text = message.format(type(e).__name__, reason)
    raise errors.UserError(f'{directory}: {text}') from e


def _without_params(state: step_lib.TrainState) -> Mapping[str, object]:
  return {
    'step': state.step,
    'opt_state': state.opt_state,
    'dropout_key': state.dropout_key,
  }
