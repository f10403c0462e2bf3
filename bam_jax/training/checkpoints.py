"""Checkpoints of one run through Orbax: the latest, and the best."""

from collections.abc import Mapping
import logging
from pathlib import Path
import shutil
from typing import Any
from typing import Self

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from bam_jax import errors
from bam_jax.training import step as step_lib

_PARAMS = 'params'
# Everything of a TrainState but the parameters: what only a resumed run needs.
_TRAIN = 'train'


class Checkpoints:
  """The checkpoints below one folder, as a context manager.

  Parameters and the rest of the state are separate items, so that inference
  reads no optimiser state and a finished run need not keep it.
  """

  def __init__(self, directory: Path):
    self._directory = directory
    # Orbax reports every save at INFO through absl; a run saves often.
    logging.getLogger('absl').setLevel(logging.WARNING)
    try:
      directory.mkdir(parents=True, exist_ok=True)
    except OSError as e:
      raise errors.UserError(f'{directory}: {e.strerror}') from e
    self._manager = ocp.CheckpointManager(
      directory.absolute(),
      item_handlers={
        _PARAMS: ocp.StandardCheckpointHandler(),
        _TRAIN: ocp.StandardCheckpointHandler(),
      },
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
          [
            policies.LatestN(1),
            policies.BestN(
              get_metric_fn=_score,
              reverse=False,
              n=1,
              keep_checkpoints_without_metrics=False,
            ),
          ]
        ),
        best_fn=_score,
        step_prefix='step',
      ),
    )

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *unused_exception: object) -> None:
    self._manager.close()

  @property
  def latest_step(self) -> int | None:
    return self._manager.latest_step()

  @property
  def best_step(self) -> int | None:
    return self._manager.best_step()

  def has(self, step: int) -> bool:
    """Whether the parameters of a step are there."""
    return step in self._manager.all_steps()

  def save(
    self,
    state: step_lib.TrainState,
    score: float | None = None,
    with_optimizer: bool = True,
  ) -> None:
    """Saves the state under its own step; returns when it may be donated.

    Args:
      state: the state after `state.step` steps.
      score: what the best checkpoint is chosen by, higher is better.
      with_optimizer: whether a run may go on from here.
    """
    step = int(state.step)
    items = {_PARAMS: ocp.args.StandardSave(state.params)}
    if with_optimizer:
      items[_TRAIN] = ocp.args.StandardSave(_without_params(state))
    try:
      self._manager.save(
        step,
        args=ocp.args.Composite(**items),
        metrics=None if score is None else {'score': score},
        force=True,
      )
    except OSError as e:
      raise errors.UserError(
        f'{self._directory}: checkpoint {step} could not be written:'
        f' {e.strerror or e}'
      ) from e

  def restore(self, like: step_lib.TrainState) -> step_lib.TrainState:
    """The latest state, with the shapes, types and shardings of `like`.

    Of a finished run that kept parameters alone the rest is that of `like`,
    with the checkpoint's step.

    Raises:
      errors.UserError: the checkpoint is of another model.
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
      step: a saved one.

    Raises:
      errors.UserError: there is no such checkpoint, or it is of another model.
    """
    if not self.has(step):
      raise errors.UserError(
        f'{self._step_directory(step)}: no checkpoint; remove the folder of the'
        ' run and train it again'
      )
    return self._restore(step, _PARAMS, like)

  def _restore(self, step: int, item: str, like: Any) -> Any:
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    self._check_shapes(step, item, abstract)
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)}),
    )
    return restored[item]

  def _check_shapes(self, step: int, item: str, abstract: Any) -> None:
    """Raises, naming the first parameter that differs in name or shape."""
    saved = self._manager.item_metadata(step)[item]
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
    """Returns when everything saved is on disk."""
    self._manager.wait_until_finished()

  def drop_optimizer(self) -> None:
    """Deletes what only a resumed run would need."""
    self.wait()
    for step in self._manager.all_steps():
      shutil.rmtree(self._step_directory(step) / _TRAIN, ignore_errors=True)


def _score(metrics: Mapping[str, float]) -> float:
  return metrics['score']


def _without_params(state: step_lib.TrainState) -> Mapping[str, object]:
  return {
    'step': state.step,
    'opt_state': state.opt_state,
    'dropout_key': state.dropout_key,
  }


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  leaves, _ = jax.tree.flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
    for path, leaf in leaves
  }
