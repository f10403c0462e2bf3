"""Self-attention within the segments of packed rows."""

import jax
import jax.numpy as jnp

from bam_jax.modeling import dropout


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segment_ids: jax.Array,
  dropout_rate: float,
  deterministic: bool,
  rng: jax.Array | None,
) -> jax.Array:
  """Scaled dot-product attention that never leaves a segment.

  A token sees the tokens of its own segment. Padding, segment 0, sees nothing
  and its context is zero, so that a row of padding alone stays finite.

  Args:
    q: [B, L, H, hd] queries; hd is the size of a head.
    k: [B, L, H, hd] keys.
    v: [B, L, H, hd] values.
    segment_ids: [B, L] int; 0 marks padding.
    dropout_rate: share of the probabilities set to zero, 0 to below 1.
    deterministic: no dropout.
    rng: key of the dropout mask; not used without dropout.

  Returns:
    [B, L, H, hd] contexts in the type of `v`. The softmax is in float32.
  """
  # [B, H, L, L]; float32 out of the product, so that nothing is rounded twice.
  logits = jnp.einsum(
    'bqhd,bkhd->bhqk', q, k, preferred_element_type=jnp.float32
  )
  mask = segment_mask(segment_ids)[:, None]  # [B, 1, L, L]
  logits = jnp.where(
    mask, logits * q.shape[-1] ** -0.5, jnp.finfo(logits.dtype).min
  )
  probs = jnp.where(mask, jax.nn.softmax(logits), 0.0)
  if not deterministic and dropout_rate > 0:
    probs = dropout.dropout(probs, dropout_rate, rng)
  return jnp.einsum('bhqk,bkhd->bqhd', probs.astype(v.dtype), v)


def segment_mask(segment_ids: jax.Array) -> jax.Array:
  """[B, L, L] bool: whether a query (axis 1) sees a key (axis 2)."""
  query, key = segment_ids[:, :, None], segment_ids[:, None, :]
  return (query == key) & (query != 0)
