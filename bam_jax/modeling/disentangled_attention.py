"""Disentangled attention (He et al. 2021, arXiv 2006.03654) by XLA.

The weight of a key depends on its content and on its distance, which is the
query's position minus the key's. Each distance belongs to a bucket, and each
bucket has a vector. Each small distance has its own bucket. Larger distances
share buckets, which are equally wide on a logarithmic scale.
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
    farthest: distances between span // 2 and `farthest` share buckets. If 0,
      each distance from -span to span - 1 has its own bucket. In both cases,
      larger distances are in the outermost buckets.
    longest: number of tokens of the longest segment.

  Returns:
    [2 * longest - 1] int32, 0 to 2 * span - 1.
  """
  distance = np.arange(1 - longest, longest)
  middle = span // 2
  if farthest:
    size = np.maximum(np.abs(distance), middle).astype(np.float32)
    # The same float32 operations in the same order as in transformers: at the
    # limits of a bucket the result depends on the rounding.
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
    span: see `buckets`.
    farthest: see `buckets`.
    longest: see `buckets`. The result is wrong for distances of `longest` or
      more, but no segment has such distances.
    length: number of tokens per row; may be a symbol of an exported program.

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

  The logit of query i and key j is q_i · k_j + q_i · K_b + k_j · Q_b, scaled.
  K_b and Q_b are the vectors of the bucket b of the distance i - j. Padding
  (segment 0) sees nothing, and its context is zero. The backward pass computes
  the probabilities again.

  Args:
    queries: [B, L, H, hd].
    keys: [B, L, H, hd].
    values: [B, L, H, hd].
    of_buckets: `c2p` -> K and `p2c` -> Q, each [num_buckets, H, hd]. If K or Q
      is missing, the logits lack the term with it.
    indices: [2 L + 1] int, the buckets of the distances -L to L.
    segment_ids: [B, L] int; 0 marks padding.
    rate: dropout rate of the probabilities, 0 to below 1.
    dropout_bits: [2] uint32, random bits for the dropout mask.

  Returns:
    Contexts [B, L, H, hd] in the dtype of `values`. The softmax is in float32.
  """
  logits = _product('blhd,bmhd->bhlm', _identity, queries, keys)
  # For each distance, an exact product with a one-hot row selects the bucket's
  # vector. A gather of logits [B, H, L, L] and its gradient are slow on TPUs.
  chosen = jax.nn.one_hot(
    indices, next(iter(of_buckets.values())).shape[0], dtype=queries.dtype
  )  # [2 L + 1, num_buckets]

  def select(chosen, vectors):
    steps = jnp.einsum(
      'nr,rhd->nhd', chosen, vectors, precision=jax.lax.Precision.HIGHEST
    )
    return steps.astype(queries.dtype)

  if 'c2p' in of_buckets:
    # For a fixed query, the distance decreases from key to key.
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

  The backward pass first casts the gradient to the dtype of x, because float32
  products and copies would take most of a step's time.
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
  """Shifts row i of each matrix [L, 2 L] left by L - 1 - i; returns [L, L].

  Element (i, j) of the result is element (i, j - i + L - 1) of x. To shift the
  rows, the flat array is cut into rows of 2 L - 1 instead of 2 L elements (Dai
  et al. 2019, "Transformer-XL", appendix B).
  """
  *batch, length, width = x.shape
  flat = x.reshape(*batch, length * width)
  flat = flat[..., length - 1 : length * width - 1]
  return flat.reshape(*batch, length, width - 1)[..., :length]


def _skew_by_key(x: jax.Array) -> jax.Array:
  return jnp.swapaxes(_skew(x), -1, -2)
