"""Annealed targets and the multi-task loss.

Letters in shapes: B rows, L tokens per row, S slots per row, T tasks, C outputs
of the widest head, K outputs of the widest token head.
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
  """Computes the target λ·gold + (1-λ)·teacher (Clark et al. 2019, section 3).

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


def multitask_loss(
  logits: jax.Array,
  batch: Mapping[str, jax.Array],
  class_mask: np.ndarray,
  kinds: Sequence[kind_lib.Kind],
  gold_weight: jax.Array | float,
  token_logits: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Sums the weighted losses of a batch, in total and per task.

  The loss of an example is the `loss` of its task's kind. Slots of weight 0 add
  exactly zero to loss and gradient, even if they hold NaN. A NaN in one task
  leaves the sums of the other tasks finite.

  >>> from bam_jax.tasks.kinds import KINDS
  >>> gold, zero = jnp.array([[[1.0, 0.0]]]), jnp.zeros((1, 1), jnp.int32)
  >>> batch = dict(gold=gold, teacher=gold, weight=zero + 2.0, task_id=zero)
  >>> mask, kinds = np.ones((1, 2), bool), (KINDS['classification'],)
  >>> loss, _ = multitask_loss(jnp.zeros((1, 1, 2)), batch, mask, kinds, 0.5)
  >>> round(float(loss), 4)  # 2 ln 2
  1.3863

  Args:
    logits: [B, S, C] float32.
    batch: the arrays of a batch; see docs/architecture.md, "Contracts".
      `gold_total` is only present if the gold labels of tasks with separate
      decisions for each label (`Kind.decides_each_label`) are weighted.
    class_mask: [T, C] bool, which outputs each head has.
    kinds: the kinds of the T tasks.
    gold_weight: λ, 0-1, scalar.
    token_logits: [B, L, K] float32; None if no task has outputs per token.

  Returns:
    The sum of weight · loss over all slots, and a dict of two arrays [T]
    float32 with a value per task: `loss`, the sum of weight · loss, and
    `count`, the number of slots with a weight above 0.
  """
  chex.assert_rank([logits, class_mask], [3, 2])
  task_id, weight = batch['task_id'], batch['weight']
  chex.assert_shape([task_id, weight], logits.shape[:2])
  live = weight > 0.0  # [B, S]
  mask = jnp.asarray(class_mask)[task_id]  # [B, S, C]
  target = mix_targets(batch['gold'], batch['teacher'], gold_weight)
  total = batch.get('gold_total')
  if total is not None:
    total = mix_targets(total, jnp.ones_like(total), gold_weight)
    total = jnp.where(live[..., None], total, 0.0)
  # The inputs of the loss are masked: if only its result were masked, the
  # gradient would be 0 · NaN.
  logits, target = (
    jnp.where(live[..., None], x, 0.0) for x in (logits, target)
  )
  if token_logits is not None:
    token_inputs = _token_inputs(token_logits, batch, gold_weight)
    token_mask = mask[..., : token_logits.shape[-1]]  # [B, S, K]
  losses = jnp.zeros(task_id.shape, jnp.float32)
  for kind in dict.fromkeys(kinds):
    is_of = jnp.asarray([kind == each for each in kinds])[task_id]  # [B, S]
    if kind.per_token:
      *tokens, inside = token_inputs
      own = inside & is_of[:, :, None]
      found = kind.loss(*tokens, own, token_mask)
    elif kind.decides_each_label and total is not None:
      found = kind.loss(logits, target, mask, total)
    else:
      found = kind.loss(logits, target, mask)
    losses = jnp.where(is_of, found, losses)
  losses = jnp.where(live, weight * losses, 0.0)
  tasks = jnp.arange(class_mask.shape[0])
  # `where` instead of a product: 0 · NaN would make the sums of all tasks NaN.
  of_task = live[..., None] & (task_id[..., None] == tasks[None, None, :])
  by_task = jnp.where(of_task, losses[..., None], 0.0)  # [B, S, T]
  return jnp.sum(losses), {
    'loss': jnp.sum(by_task, axis=(0, 1)),
    'count': jnp.sum(of_task, axis=(0, 1), dtype=jnp.float32),
  }


def _token_inputs(
  logits: jax.Array,
  batch: Mapping[str, jax.Array],
  gold_weight: jax.Array | float,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Prepares the arguments of `PerToken.loss`.

  Tokens whose share is 0, and tokens in slots of weight 0, will add exactly
  zero to loss and gradient, even if they hold NaN.

  Returns:
    Logits and targets, each [B, L, K]; shares [B, L]; and a mask [B, S, L] of
    the tokens of each slot that add to the loss.
  """
  target = mix_targets(batch['token_gold'], batch['token_teacher'], gold_weight)
  chex.assert_equal_shape([logits, target])
  share, weight = batch['token_share'], batch['weight']
  number = jnp.arange(1, weight.shape[1] + 1)
  inside = batch['segment_ids'][:, None, :] == number[None, :, None]
  inside &= (weight > 0.0)[:, :, None]
  inside &= (share > 0.0)[:, None, :]  # [B, S, L]
  live = jnp.any(inside, axis=1)[..., None]  # [B, L, 1]
  logits, target = (jnp.where(live, x, 0.0) for x in (logits, target))
  return logits, target, share, inside
