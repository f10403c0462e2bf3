"""Losses of tasks whose outputs are of tokens, each summed into its example.

Whatever an example's length, and whatever shares its row, it is one unit of
loss. B rows, L tokens, S segment slots, C outputs of the widest head, K of the
widest head of tokens, T tasks.
"""

from collections.abc import Mapping
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np


def in_slots(
  losses: jax.Array,
  logits: jax.Array,
  target: jax.Array,
  batch: Mapping[str, jax.Array],
  class_mask: np.ndarray,
  kinds: Sequence[str],
) -> jax.Array:
  """Puts the losses of examples whose outputs are of tokens in their slots.

  Args:
    losses: [B, S] float32, of the slots that have others.
    logits: [B, L, K] float32.
    target: [B, L, K] float32, as `losses.mix_targets` returns.
    batch: reads segment_ids [B, L] int32, token_share [B, L] float32, task_id
      [B, S] int32 and weight [B, S] float32. Tokens of share 0, and of slots of
      weight 0, add exactly zero to loss and gradient, whatever they hold.
    class_mask: [T, C] bool.
    kinds: [T] names of the tasks' kinds.

  Returns:
    [B, S] float32.
  """
  task_id, share = batch['task_id'], batch['token_share']
  chex.assert_equal_shape([logits, target])
  chex.assert_shape(share, logits.shape[:2])
  number = jnp.arange(1, task_id.shape[1] + 1)
  inside = batch['segment_ids'][:, None, :] == number[None, :, None]
  inside &= (batch['weight'] > 0.0)[:, :, None]
  inside &= (share > 0.0)[:, None, :]  # [B, S, L]
  live = jnp.any(inside, axis=1)[..., None]  # [B, L, 1]
  # Before the loss: after it, the gradient would be 0 · NaN.
  logits, target = (jnp.where(live, x, 0.0) for x in (logits, target))
  for kind, loss in _LOSSES.items():
    if kind in kinds:
      is_of = jnp.asarray([kind == each for each in kinds])[task_id]
      own = inside & is_of[:, :, None]
      mask = jnp.asarray(class_mask)[:, : logits.shape[-1]][task_id]
      losses = jnp.where(is_of, loss(logits, target, share, own, mask), losses)
  return losses


def _tagging(
  logits: jax.Array,
  target: jax.Array,
  share: jax.Array,
  inside: jax.Array,
  class_mask: jax.Array,
) -> jax.Array:
  """The soft cross-entropy of each word, times its share of the example.

  Args:
    logits: [B, L, K].
    target: [B, L, K].
    share: [B, L], 1 / the example's words.
    inside: [B, S, L] bool, the words of each slot.
    class_mask: [B, S, K] bool, the outputs of each slot's head.

  Returns:
    [B, S].
  """
  mask = jnp.any(inside[..., None] & class_mask[:, :, None], axis=1)
  # Tokens outside of all slots have no outputs; they are given all.
  mask |= ~jnp.any(inside, axis=1)[..., None]  # [B, L, K]
  log_probs = jax.nn.log_softmax(jnp.where(mask, logits, -jnp.inf))
  # The -inf of an absent class must not meet its target of 0.
  log_probs = jnp.where(mask, log_probs, 0.0)
  losses = -share * jnp.sum(target * log_probs, axis=-1)  # [B, L]
  return jnp.sum(jnp.where(inside, losses[:, None], 0.0), axis=-1)


def _qa(
  logits: jax.Array,
  target: jax.Array,
  share: jax.Array,
  inside: jax.Array,
  class_mask: jax.Array,
) -> jax.Array:
  """Mean of the soft cross-entropies of start and end, over a slot's places.

  Args:
    logits: [B, L, K], of which two are read.
    target: [B, L, K].
    share: [B, L], not read: above 0 where an answer may start or end.
    inside: [B, S, L] bool, those places of each slot.
    class_mask: [B, S, K], not read.

  Returns:
    [B, S].
  """
  del share, class_mask
  inside = inside[..., None]  # [B, S, L, 1]
  # A slot without a place has all, for the sake of finite numbers.
  mask = inside | ~jnp.any(inside, axis=2, keepdims=True)
  masked = jnp.where(mask, logits[:, None, :, :2], -jnp.inf)
  log_probs = jax.nn.log_softmax(masked, axis=2)  # [B, S, L, 2]
  log_probs = jnp.where(inside, log_probs, 0.0)
  return -jnp.sum(target[:, None, :, :2] * log_probs, axis=(2, 3)) / 2


_LOSSES = {'tagging': _tagging, 'qa': _qa}
