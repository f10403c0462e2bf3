"""Annealed targets and the multi-task loss.

B rows, L tokens, S slots per row, T tasks; C outputs of the widest head, K of
the widest head per token. `kinds` are the kinds of the T tasks, and
`class_mask` [T, C] marks the outputs of each head.
"""

from collections.abc import Mapping, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from bam_jax.tasks import kind as kind_lib


def mix_targets(
  gold: jax.Array, teacher: jax.Array, gold_weight: jax.Array | float
) -> jax.Array:
  """Mixes the target λ·gold + (1-λ)·teacher (Clark et al. 2019, section 3).

  >>> mix_targets(jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5]), 0.5).tolist()
  [0.75, 0.25]

  Args:
    gold: [..., C] one-hot or multi-hot labels, or a 0-1 score in channel 0.
    teacher: [..., C] probabilities, or a predicted 0-1 score in channel 0.
    gold_weight: λ, 0-1, scalar.

  Returns:
    [..., C] float32; bit-equal to `teacher` at λ = 0 and to `gold` at λ = 1.
  """
  chex.assert_equal_shape([gold, teacher])
  return gold_weight * gold + (1.0 - gold_weight) * teacher


def example_losses(
  logits: jax.Array,
  target: jax.Array,
  class_mask: jax.Array,
  task_id: jax.Array,
  kinds: Sequence[kind_lib.Kind],
) -> jax.Array:
  """Computes each example's loss by its task's kind, [B, S] float32.

  It is 0 for tasks with outputs per token.

  >>> from bam_jax.tasks.kinds import KINDS
  >>> logits = jnp.array([[[0.0, 0.0, 9.0], [0.5, 9.0, 9.0]]])
  >>> target = jnp.array([[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
  >>> mask = jnp.array([[[True, True, False], [True, False, False]]])
  >>> kinds = KINDS['classification'], KINDS['regression'].with_head('linear')
  >>> losses = example_losses(logits, target, mask, jnp.array([[0, 1]]), kinds)
  >>> [round(x, 4) for x in losses[0].tolist()]  # ln 2, (0.5 - 1)**2
  [0.6931, 0.25]

  Args:
    logits: [B, S, C] float32.
    target: [B, S, C] float32, from `mix_targets`.
    class_mask: [B, S, C] bool, the outputs of the slot's head.
    task_id: [B, S] int32.
    kinds: of the T tasks.
  """
  chex.assert_equal_shape([logits, target, class_mask])
  result = jnp.zeros(task_id.shape, jnp.float32)
  for kind in dict.fromkeys(kinds):
    if not kind.per_token:
      losses = kind.loss(logits, target, class_mask)
      result = jnp.where(_is_of(kind, kinds)[task_id], losses, result)
  return result


def add_token_losses(
  losses: jax.Array,
  logits: jax.Array,
  target: jax.Array,
  batch: Mapping[str, jax.Array],
  class_mask: np.ndarray,
  kinds: Sequence[kind_lib.Kind],
) -> jax.Array:
  """Fills in the losses of the tasks with outputs per token.

  The loss of an example does not depend on its length or on the other examples
  of its row. Tokens of share 0, and tokens of slots of weight 0, add exactly
  zero to loss and gradient, even if they hold NaN.

  The losses [B, S] are from `example_losses`; logits and target are [B, L, K].
  """
  task_id, share = batch['task_id'], batch['token_share']
  chex.assert_equal_shape([logits, target])
  number = jnp.arange(1, task_id.shape[1] + 1)
  inside = batch['segment_ids'][:, None, :] == number[None, :, None]
  inside &= (batch['weight'] > 0.0)[:, :, None]
  inside &= (share > 0.0)[:, None, :]  # [B, S, L]
  live = jnp.any(inside, axis=1)[..., None]  # [B, L, 1]
  # Before the loss: after it, the gradient would be 0 · NaN.
  logits, target = (jnp.where(live, x, 0.0) for x in (logits, target))
  mask = jnp.asarray(class_mask)[:, : logits.shape[-1]][task_id]
  for kind in dict.fromkeys(kinds):
    if kind.per_token:
      is_of = _is_of(kind, kinds)[task_id]
      own = inside & is_of[:, :, None]
      found = kind.loss(logits, target, share, own, mask)
      losses = jnp.where(is_of, found, losses)
  return losses


def _is_of(kind: kind_lib.Kind, kinds: Sequence[kind_lib.Kind]) -> jax.Array:
  return jnp.asarray([kind == each for each in kinds])


def multitask_loss(
  logits: jax.Array,
  batch: Mapping[str, jax.Array],
  class_mask: jax.Array,
  kinds: Sequence[kind_lib.Kind],
  gold_weight: jax.Array | float,
  token_logits: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Weighted sum of the losses of a batch, in total and per task.

  Slots of weight 0 add exactly zero to loss and gradient, even if they hold
  NaN. A NaN in one task leaves the sums of the other tasks finite.

  Args:
    logits: [B, S, C] float32.
    batch: the arrays of a batch; see docs/architecture.md, "Contracts".
    class_mask: [T, C] bool.
    kinds: of the T tasks.
    gold_weight: λ, 0-1, scalar.
    token_logits: [B, L, K] float32; None if no task has outputs per token.

  Returns:
    The sum of weight · loss over all slots, and float32 sums [T] per task:
    `loss`, and `count` of the slots with a weight above 0.
  """
  chex.assert_rank([logits, class_mask], [3, 2])
  task_id, weight = batch['task_id'], batch['weight']
  chex.assert_shape([task_id, weight], logits.shape[:2])
  live = weight > 0.0  # [B, S]

  def clean(x: jax.Array) -> jax.Array:
    # Before the loss: after it, the gradient would be 0 · NaN.
    return jnp.where(live[..., None], x, 0.0)

  losses = example_losses(
    clean(logits),
    clean(mix_targets(batch['gold'], batch['teacher'], gold_weight)),
    jnp.asarray(class_mask)[task_id],
    task_id,
    kinds,
  )
  if token_logits is not None:
    losses = add_token_losses(
      losses,
      token_logits,
      mix_targets(batch['token_gold'], batch['token_teacher'], gold_weight),
      batch,
      class_mask,
      kinds,
    )
  losses = jnp.where(live, weight * losses, 0.0)  # [B, S]
  tasks = jnp.arange(class_mask.shape[0])
  # Selected, not multiplied: 0 · NaN would reach every task.
  of_task = live[..., None] & (task_id[..., None] == tasks[None, None, :])
  by_task = jnp.where(of_task, losses[..., None], 0.0)  # [B, S, T]
  return jnp.sum(losses), {
    'loss': jnp.sum(by_task, axis=(0, 1)),
    'count': jnp.sum(of_task, axis=(0, 1), dtype=jnp.float32),
  }
