"""The model applied to a train state's parameters."""

from collections.abc import Callable
from typing import Any

import jax

from bam_jax.core import step as step_lib
from bam_jax.modeling import heads
from bam_jax.modeling import layers
from bam_jax.training import mesh as mesh_lib


def make_apply(
  model: heads.MultiTaskModel,
  param_shardings: Any = None,
  stack_late: bool = False,
) -> Callable[..., heads.Logits]:
  """The function (params, batch, dropout key) -> logits.

  Args:
    model: maps (batch, deterministic) to logits.
    param_shardings: the model's tree of shardings of parameters spread over
      devices, which are then gathered for use; None: they are whole.
    stack_late: as for `layers.unstack`.

  Returns:
    The function; without a key there is no dropout.
  """

  def apply(
    params: Any, batch: step_lib.Batch, key: jax.Array | None = None
  ) -> heads.Logits:
    params = layers.unstack(params, model.dtype, stack_late)
    if param_shardings is not None:
      params = mesh_lib.gathered(params, param_shardings)
    is_deterministic = key is None
    rngs = {} if is_deterministic else {'dropout': key}
    return model.apply(
      {'params': params}, batch, deterministic=is_deterministic, rngs=rngs
    )

  return apply
