"""Checkpoints of one run, through Orbax: the latest and the best are kept.

The metadata of a checkpoint holds its score and a checksum of each array, and
no checkpoint is used before they agree with what was read.

A run that is stopped saves its current step. If that step is due to be
evaluated, this happens when the run goes on, and its score is kept in the
metadata of the next checkpoint: no checkpoint is ever written twice.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import json
import logging
import math
from pathlib import Path
import shutil
from typing import Any
from typing import Self

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
# The rest of a TrainState, which only a resumed run needs.
_TRAIN = 'train'


class _Manager(ocp.CheckpointManager):
  """Orbax's checkpoint manager, without its check for preemption.

  JAX lets processes agree on one counter, and `processes.AgreedSignal` counts
  its own checks, while Orbax would ask with the step's number.
  """

  def reached_preemption(self, step: int) -> bool:
    """Returns False: the caller decides what is saved."""
    del step
    return False


class Checkpoints:
  """Context manager for the checkpoints of one run.

  Parameters and the rest of the state are separate items, so that inference
  reads no optimiser state and a finished run need not keep it.
  """

  def __init__(self, directory: Path):
    """Opens a folder of checkpoints, which is created if missing.

    Raises:
      errors.UserError: the folder can't be made, or a score is damaged.
    """
    self._directory = directory
    self._scores: dict[int, float] = {}
    self._late: set[int] = set()
    self._unlogged: list[list[float]] = []
    # Orbax logs every save, and each of its threads logs the errors that it
    # also raises; asyncio logs them once more.
    for name in ('absl', 'asyncio'):
      logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
      directory.mkdir(parents=True, exist_ok=True)
    except OSError as e:
      raise errors.UserError(f'{directory}: {e.strerror}') from e
    with _reading(directory):
      self._manager = _Manager(
        directory.absolute(),
        item_handlers={
          _PARAMS: ocp.StandardCheckpointHandler(),
          _TRAIN: ocp.StandardCheckpointHandler(),
        },
        options=ocp.CheckpointManagerOptions(
          preservation_policy=policies.AnyPreservationPolicy(
            [policies.LatestN(1), scores_lib.PreserveBest(self._scores)]
          ),
          best_fn=_score,
          step_prefix='step',
        ),
      )
    steps = self._manager.all_steps()
    for step in steps:
      self._read_score(step, is_latest=step == max(steps))
    if steps:
      with _reading(self._step_directory(max(steps))):
        self._unlogged, late = scores_lib.read_carried(
          scores_lib.read_metadata(self._step_directory(max(steps)))
        )
      self._scores.update(late)
      self._late.update(late)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *unused_exception: object) -> None:
    with _writing(self._directory):
      self._manager.close()

  @property
  def latest_step(self) -> int | None:
    """The step of the latest checkpoint; None if there is none."""
    return self._manager.latest_step()

  @property
  def best_step(self) -> int | None:
    """The step of the highest score; the latest one if none has a score."""
    return (
      scores_lib.best_step(self._scores, self._manager.all_steps())
      or self.latest_step
    )

  def score(self, step: int) -> float | None:
    """The score of a step, if it has one."""
    return self._scores.get(step)

  def add_score(self, score: float) -> None:
    """Sets the score of the latest step if it has none; ignores nan."""
    if self.latest_step not in self._scores and not math.isnan(score):
      self._scores[self.latest_step] = score
      self._late.add(self.latest_step)

  def unlogged(self) -> list[list[float]]:
    """The `unlogged` metrics that the latest step was saved with."""
    return self._unlogged

  def has(self, step: int) -> bool:
    """Whether there is a checkpoint of a step."""
    return step in self._manager.all_steps()

  def save(
    self,
    state: step_lib.TrainState,
    score: float | None = None,
    with_optimizer: bool = True,
    unlogged: Sequence[Sequence[float]] = (),
  ) -> None:
    """Saves a state; returns once it may be donated.

    Args:
      state: the state after `state.step` steps.
      score: chooses the best checkpoint, higher is better; an undefined score,
        nan, is stored as none, so that it is never preferred.
      with_optimizer: whether the run can be resumed from here.
      unlogged: metrics of earlier steps that are not in the log.

    Raises:
      errors.UserError: this checkpoint, or the one before, can't be written.
    """
    step = int(state.step)
    if score is not None and math.isnan(score):
      score = None
    trees = {_PARAMS: state.params}
    if with_optimizer:
      trees[_TRAIN] = _without_params(state)
    checksums = {
      name: checksums_lib.checksums(tree) for name, tree in trees.items()
    }
    metadata = {_CHECKSUMS: checksums, scores_lib.SCORE: score}
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
        custom_metadata=metadata | self._to_carry(unlogged),
      )

  def restore(self, like: step_lib.TrainState) -> step_lib.TrainState:
    """The latest state, with the shapes, types and shardings of `like`.

    If a finished run kept only its parameters, the optimiser state is that of
    `like`.

    Raises:
      errors.UserError: the checkpoint is damaged or of another model.
    """
    step = self._manager.latest_step()
    params = self.restore_params(like.params, step)
    if not (self._step_directory(step) / _TRAIN).is_dir():
      return like.replace(params=params, step=like.step + step)
    train = self._restore(step, _TRAIN, _without_params(like))
    return like.replace(params=params, **train)

  def restore_params(self, like: Any, step: int) -> Any:
    """The parameters of a step.

    Args:
      like: tree of arrays or of `jax.ShapeDtypeStruct`s with shardings.
      step: step of a checkpoint.

    Raises:
      errors.UserError: the checkpoint is missing, damaged or of another model.
    """
    if not self.has(step):
      raise errors.UserError(
        f'{self._step_directory(step)}: no checkpoint; remove the folder of the'
        ' run and train it again'
      )
    return self._restore(step, _PARAMS, like)

  def _restore(self, step: int, item: str, like: Any) -> Any:
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    with _reading(self._step_directory(step)):
      metadata = self._manager.metadata(step)
      self._check_shapes(step, item, abstract, metadata.item_metadata[item])
      restored = self._manager.restore(
        step,
        args=ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)}),
      )[item]
      self._check_sums(step, item, restored, metadata.custom_metadata or {})
    return restored

  def _to_carry(self, unlogged: Sequence[Sequence[float]]) -> dict[str, object]:
    """Metadata of the next checkpoint, for `checkpoint_scores.read_carried`."""
    steps = self._late.intersection(self._manager.all_steps())
    late = {str(step): self._scores[step] for step in sorted(steps)}
    if not late and not unlogged:
      return {}
    return scores_lib.carry(unlogged, late)

  def _read_score(self, step: int, is_latest: bool) -> None:
    """Reads the score of a checkpoint; raises if it is damaged.

    An earlier step with missing files has no score: a process that was deleting
    it, since a later step had replaced it, was killed.
    """
    with _reading(self._step_directory(step)):
      try:
        metadata = scores_lib.read_metadata(self._step_directory(step))
        score = scores_lib.read_score(self._step_directory(step))
      except FileNotFoundError:
        if is_latest:
          raise
        return
      if scores_lib.SCORE in metadata and (is_latest or score is not None):
        # Compared as text, since a damaged score may be nan.
        recorded = json.dumps(metadata[scores_lib.SCORE])
        if json.dumps(score) != recorded:
          raise ValueError(f'the score is {score}, was {recorded}')
      if score is not None:
        self._scores[step] = score

  def _check_sums(
    self, step: int, item: str, restored: Any, metadata: Mapping[str, Any]
  ) -> None:
    """Raises a ValueError with the first array that fails its checksum."""
    if _CHECKSUMS not in metadata:
      # Written before checkpoints had checksums.
      logging.warning(
        '%s: has no checksums; used as it is', self._step_directory(step)
      )
      return
    saved = metadata[_CHECKSUMS][item]
    for name, value in checksums_lib.checksums(restored).items():
      if saved[name] != value:
        raise ValueError(f'{name} fails its checksum')

  def _check_shapes(
    self, step: int, item: str, abstract: Any, saved: Any
  ) -> None:
    """Raises a UserError with the first parameter of another name or shape."""
    if saved is None:
      raise errors.UserError(
        f'{self._step_directory(step)}: the checkpoint has no {item}'
      )
    want, have = _shapes(abstract), _shapes(saved)
    for name in sorted(want | have):
      if want.get(name) != have.get(name):
        raise errors.UserError(
          f'{self._step_directory(step)}: {name} has shape {have.get(name)}'
          f' in the checkpoint and {want.get(name)} in the model; use the'
          ' config that it was trained with'
        )

  def _step_directory(self, step: int) -> Path:
    return self._directory / f'step_{step}'

  def wait(self) -> None:
    """Waits until everything saved is on disk.

    Raises:
      errors.UserError: something could not be written.
    """
    with _writing(self._directory):
      self._manager.wait_until_finished()

  def drop_optimizer(self) -> None:
    """Deletes the optimiser states, which only a resumed run needs."""
    self.wait()
    for step in self._manager.all_steps() if processes.is_first() else ():
      shutil.rmtree(self._step_directory(step) / _TRAIN, ignore_errors=True)


@contextlib.contextmanager
def _as_user_error(describe: Callable[[Exception], str]) -> Iterator[None]:
  """Raises errors of Orbax, which may be of any type, as a UserError."""
  try:
    yield
  except (errors.UserError, errors.RetryError):
    raise
  except Exception as e:
    if peers.is_peer_error(e):
      raise
    raise errors.UserError(describe(e)) from e


def _writing(directory: Path) -> contextlib.AbstractContextManager[None]:
  """Context for writing checkpoints; raises a UserError if that fails.

  The error may be one that a thread of Orbax met in an earlier call.
  """
  return _as_user_error(
    lambda e: (
      f'{directory}: a checkpoint could not be written ({e}); free some space'
      ' or give permission, and the same command goes on from the last one that'
      ' was'
    )
  )


def _reading(directory: Path) -> contextlib.AbstractContextManager[None]:
  """Context for reading a checkpoint; raises a UserError if it is damaged."""
  return _as_user_error(
    lambda e: (
      f'{directory}: is damaged ({type(e).__name__}: {e}); remove that folder,'
      ' and the run goes on from an older checkpoint; if the run was finished,'
      ' remove the folder of the run to train it again'
    )
  )


def _score(metrics: Mapping[str, float]) -> float:
  return metrics[scores_lib.SCORE]


def _without_params(state: step_lib.TrainState) -> Mapping[str, object]:
  return {
    'step': state.step,
    'opt_state': state.opt_state,
    'dropout_key': state.dropout_key,
  }


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  return {
    name: tuple(leaf.shape) for name, leaf in checksums_lib.named_leaves(tree)
  }
