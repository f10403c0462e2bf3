"""Disentangled attention (He et al. 2021, arXiv 2006.03654) by XLA.

A token attends to another by its content and by how far away it is. Distances,
the query's position minus the key's, fall into buckets, each with a vector.
Small distances have buckets of their own. Larger ones share buckets, in ranges
that grow with the logarithm.
"""

from collections.abc import Mapping
import functools

import jax
import jax.numpy as jnp
import numpy as np

from bam_jax.modeling import attention_head
from bam_jax.modeling import dropout


def buckets(span: int, farthest: int, longest: int) -> np.ndarray:
  """Returns the bucket of each distance from -(longest - 1) to longest - 1.

  >>> buckets(4, 16, 9).tolist()
  [1, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7]

  Args:
    span: half the number of buckets, at least 2.
    farthest: from span // 2 to below this, distances share the upper half of
      the buckets; 0: each distance has its own bucket, up to `span`.
    longest: tokens of the longest segment.

  Returns:
    [2 * longest - 1] int32, 0 to 2 * span - 1.
  """
  distance = np.arange(1 - longest, longest)
  middle = span // 2
  if farthest:
    size = np.maximum(np.abs(distance), middle).astype(np.float32)
    # In float32 and in this order as in transformers: at the bounds of a range
    # the result depends on the rounding.
    far = np.log(size / np.float32(middle))
    far /= np.log(np.float32((farthest - 1) / middle))
    far = np.ceil(far * np.float32(middle - 1)) + middle
    distance = np.where(size > middle, np.sign(distance) * far, distance)
  return np.clip(distance.astype(np.int32) + span, 0, 2 * span - 1)


def bucket_indices(
  span: int, farthest: int, longest: int, length: int
) -> jax.Array:
  """Returns the bucket of each distance from -length to length.

  Args:
    span: of `buckets`, as `farthest` and `longest`.
    length: tokens of a row, which may be a symbol of an exported program.
      Distances of `longest` and more are in no segment; their buckets are
      wrong.

  Returns:
    [2 * length + 1] int32.
  """
  steps = jax.lax.iota(jnp.int32, 2 * length + 1) + (longest - 1 - length)
  table = jnp.asarray(buckets(span, farthest, longest))
  return jnp.take(table, steps, mode='clip')


@functools.partial(jax.checkpoint, static_argnums=6)
def attend(
  queries: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  of_buckets: Mapping[str, jax.Array],
  indices: jax.Array,
  segment_ids: jax.Array,
  rate: float,
  dropout_bits: jax.Array,
) -> jax.Array:
  """Computes disentangled attention within each segment.

  A query i sees a key j by q_i · k_j + q_i · K_b + k_j · Q_b, with the vectors
  K and Q of the bucket b of the distance i - j. Padding, segment 0, sees
  nothing, and its context is zero. The probabilities are computed again in the
  backward pass.

  Args:
    queries: [B, L, H, hd], as keys and values.
    of_buckets: [num_buckets, H, hd] each, K as `c2p` and Q as `p2c`; a missing
      one's term is left out.
    indices: [2 L + 1] int, the buckets of the distances -L to L.
    segment_ids: [B, L] int.
    rate: of dropout of the probabilities, 0 to below 1.
    dropout_bits: [2] uint32 of its mask.

  Returns:
    [B, L, H, hd] in the type of `values`. The softmax is in float32.
  """
  logits = _product('blhd,bmhd->bhlm', _identity, queries, keys)
  # A bucket's vector is selected for each distance by a product, exactly: a
  # gather of logits [B, H, L, L] is slow on TPUs, and so is its gradient.
  chosen = jax.nn.one_hot(
    indices, next(iter(of_buckets.values())).shape[0], dtype=queries.dtype
  )  # [2 L + 1, num_buckets]

  def select(chosen, vectors):
    steps = jnp.einsum(
      'nr,rhd->nhd', chosen, vectors, precision=jax.lax.Precision.HIGHEST
    )
    return steps.astype(queries.dtype)

  if 'c2p' in of_buckets:
    # Along a query's row, the distance falls from key to key.
    of_steps = select(chosen[:-1][::-1], of_buckets['c2p'])
    logits += _product('blhd,nhd->bhln', _skew, queries, of_steps)
  if 'p2c' in of_buckets:
    of_steps = select(chosen[1:], of_buckets['p2c'])
    logits += _product('bmhd,nhd->bhmn', _skew_by_key, keys, of_steps)
  sees = segment_ids[:, :, None] == segment_ids[:, None, :]
  sees &= segment_ids[:, :, None] > 0  # [B, L, L]
  scale = (queries.shape[-1] * (1 + len(of_buckets))) ** -0.5
  logits = jnp.where(sees[:, None], logits * scale, attention_head.LOWEST)
  probs = jnp.where(sees[:, None], jax.nn.softmax(logits), 0)
  probs = dropout.dropout(probs, rate, dropout_bits).astype(values.dtype)
  contexts = _product('bhlm,bmhd->blhd', _identity, probs, values)
  return contexts.astype(values.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(equation, arrange, x, y):
  """Returns arrange(einsum(equation, x, y)) in float32.

  The gradient is cast to the type of x before it is arranged and multiplied:
  products and copies of float32 would take most of a step's time.
  """
  return arrange(jnp.einsum(equation, x, y, preferred_element_type=jnp.float32))


def _product_backward(equation, arrange, operands, gradient):
  def narrow(x, y):
    return arrange(jnp.einsum(equation, x, y))

  _, pull_back = jax.vjp(narrow, *operands)
  return pull_back(gradient.astype(operands[0].dtype))


_product.defvjp(
  lambda *arguments: (_product(*arguments), arguments[2:]), _product_backward
)


def _identity(x: jax.Array) -> jax.Array:
  return x


def _skew(x: jax.Array) -> jax.Array:
  """Moves row i of each matrix [L, 2 L] left by L - 1 - i; returns [L, L].

  Element (i, j) of the result is (i, j - i + L - 1) of x. If the flat array is
  cut into rows of 2 L - 1, each begins one element earlier than the one before
  (Dai et al. 2019, "Transformer-XL", appendix B).
  """
  *batch, length, width = x.shape
  flat = x.reshape(*batch, length * width)
  flat = flat[..., length - 1 : length * width - 1]
  return flat.reshape(*batch, length, width - 1)[..., :length]


def _skew_by_key(x: jax.Array) -> jax.Array:
  return jnp.swapaxes(_skew(x), -1, -2)
