"""Attention of all heads by XLA, for devices and shapes without a kernel."""

from collections.abc import Callable, Sequence
import functools

import jax
import jax.numpy as jnp

from bam_jax.modeling import attention_head

_QUERIES = 128  # number of queries in a block


def apply_to_rows(
  function: Callable,
  rate: float,
  arrays: Sequence[jax.Array],
  segment_ids: jax.Array,
  first: jax.Array,
  bias: jax.Array,
  dropout_bits: jax.Array,
  window: int | None = None,
) -> tuple[jax.Array, ...]:
  """Computes attention for all queries of all rows and heads at once.

  Args:
    function: `forward` or `backward` of `attention_head`.
    rate: dropout rate, 0 to below 1.
    arrays: [B, L, 3, H, hd] queries, keys and values, before their bias is
      added; and for the backward pass the gradient [B, L, H, hd] of the
      contexts.
    segment_ids: [B, L] int32; 0 marks padding.
    first: [1] uint32, index of the device's first row in the whole batch.
    bias: [3, H, hd] bias of the queries, keys and values.
    dropout_bits: [2] uint32, random bits for the dropout mask.
    window: how many tokens before and after itself a query sees; None: no
      limit.

  Returns:
    For `forward`, the contexts [B, L, H, hd]. For `backward`, the gradient of
    queries, keys and values, [B, L, 3, H, hd], and the sums of this gradient
    over the tokens of each row, [B, 3, H, hd] float32.
  """
  qkv, *others = arrays
  length = qkv.shape[1]
  qkv = attention_head.add_bias(qkv, bias[None, None])
  inputs = (qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], *others)
  zero = jnp.uint32(0)
  tile = attention_head.Tile(
    segment_ids,
    segment_ids,
    rate,
    tuple(dropout_bits),
    zero,
    (length, 1),
    window,
  )
  outputs = _to_heads(function, tile, inputs, first)
  if function is attention_head.forward:
    return (outputs[0].astype(qkv.dtype),)
  whole = jnp.stack(outputs, axis=2)
  return whole.astype(qkv.dtype), jnp.sum(whole, axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend_queries(
  rate: float,
  queries: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  query_segments: jax.Array,
  segment_ids: jax.Array,
  dropout_bits: jax.Array,
) -> jax.Array:
  """Computes attention for some queries of each row.

  Args:
    rate: dropout rate, 0 to below 1.
    queries: [B, S, H, hd], with their bias; so are keys and values.
    keys: [B, L, H, hd].
    values: [B, L, H, hd].
    query_segments: [B, S] int32, segment of each query.
    segment_ids: [B, L] int32; 0 marks padding.
    dropout_bits: [2] uint32, random bits for the dropout mask.

  Returns:
    The contexts [B, S, H, hd], in the dtype of `queries`.
  """
  arguments = queries, keys, values, query_segments, segment_ids, dropout_bits
  return _attend_queries_forward(rate, *arguments)[0]


def _attend_queries_forward(rate, queries, keys, values, *rest):
  inputs = queries, keys, values
  (contexts,) = _apply_to_queries(attention_head.forward, rate, inputs, *rest)
  return contexts.astype(queries.dtype), (inputs, rest)


def _attend_queries_backward(rate, saved, gradient):
  inputs, rest = saved
  gradients = _apply_to_queries(
    attention_head.backward, rate, (*inputs, gradient), *rest
  )
  of_inputs = (x.astype(like.dtype) for x, like in zip(gradients, inputs))
  return *of_inputs, None, None, None


attend_queries.defvjp(_attend_queries_forward, _attend_queries_backward)


def _apply_to_queries(
  function, rate, inputs, query_segments, segment_ids, dropout_bits
):
  zero = jnp.uint32(0)
  strides = segment_ids.shape[1], 1
  tile = attention_head.Tile(
    query_segments, segment_ids, rate, tuple(dropout_bits), zero, strides
  )
  return _to_heads(function, tile, inputs, zero[None])


def apply_to_blocks(
  function: Callable,
  rate: float,
  arrays: Sequence[jax.Array],
  segment_ids: jax.Array,
  first: jax.Array,
  bias: jax.Array,
  dropout_bits: jax.Array,
  window: int | None = None,
) -> tuple[jax.Array, ...]:
  """Computes the same as `apply_to_rows`, block after block of queries.

  A block reads only the keys that its queries may see, and no array is
  quadratic in the row length.
  """
  qkv, *gradients = arrays
  size, length = qkv.shape[:2]
  qkv = attention_head.add_bias(qkv, bias[None, None])
  count = -(-length // _QUERIES)
  # The last block is filled up with padding. Queries of padding see nothing.
  surplus = count * _QUERIES - length
  reach = length if window is None else window
  # The length may be a symbol, which only a function of JAX can compare.
  num_keys = jax.core.min_dim(_QUERIES + 2 * reach, length)

  def split(x):
    x = jnp.pad(x, [(0, 0), (0, surplus)] + [(0, 0)] * (x.ndim - 2))
    x = x.reshape(size, count, _QUERIES, *x.shape[2:])
    return jnp.moveaxis(x, 1, 0)

  def visit(sums, block):
    start, segments, q, *gradient = block
    begin = jnp.clip(start - reach, 0, length - num_keys)

    def keys_of(x):
      return jax.lax.dynamic_slice_in_dim(x, begin, num_keys, axis=1)

    tile = attention_head.Tile(
      segments,
      keys_of(segment_ids),
      rate,
      tuple(dropout_bits),
      (start * length + begin).astype(jnp.uint32),
      (length, 1),
      window,
      start - begin,
    )
    inputs = (q, keys_of(qkv[:, :, 1]), keys_of(qkv[:, :, 2]), *gradient)
    output, *more = _to_heads(function, tile, inputs, first)
    if is_forward:
      return sums, output.astype(qkv.dtype)
    sums = [
      jax.lax.dynamic_update_slice_in_dim(x, keys_of(x) + of_keys, begin, 1)
      for x, of_keys in zip(sums, more, strict=True)
    ]
    return sums, output

  is_forward = function is attention_head.forward
  shape = (size, length, *qkv.shape[3:])
  sums = [] if is_forward else [jnp.zeros(shape, jnp.float32)] * 2
  starts = jnp.arange(count, dtype=jnp.int32) * _QUERIES
  blocks = starts, *map(split, (segment_ids, qkv[:, :, 0], *gradients))
  sums, outputs = jax.lax.scan(visit, sums, blocks)
  outputs = jnp.moveaxis(outputs, 0, 1).reshape(size, -1, *shape[2:])
  outputs = outputs[:, :length]
  if is_forward:
    return (outputs,)
  whole = jnp.stack([outputs, *sums], axis=2)
  return whole.astype(qkv.dtype), jnp.sum(whole, axis=1)


def _to_heads(
  function: Callable,
  tile: attention_head.Tile,
  inputs: Sequence[jax.Array],
  first: jax.Array,
) -> tuple[jax.Array, ...]:
  """Applies `forward` or `backward` of `attention_head` to all heads of B rows.

  Args:
    function: `attention_head.forward` or `attention_head.backward`.
    tile: masks for all heads. Unlike in the tile of one head, the segments are
      [B, n] and [B, m], and `first` is counted from each head's first
      probability.
    inputs: n queries [B, n, H, hd], m keys and values [B, m, H, hd], and for
      the backward pass the gradient [B, n, H, hd] of the contexts.
    first: [1] uint32, index of the device's first row in the whole batch.

  Returns:
    The function's outputs, float32; output i has the shape of input i.
  """
  num_heads = inputs[0].shape[2]

  def head(number, inputs, row_segments, column_segments, row):
    index = attention_head.first_index(row, number, num_heads, tile.strides[0])
    own = tile._replace(
      row_segments=row_segments[:, None],
      column_segments=column_segments[None],
      first=index + tile.first,
    )
    return function(own, *inputs)

  def of_row(inputs, *rest):
    numbers = jnp.arange(num_heads)
    axes = (0, 1, None, None, None)
    return jax.vmap(head, axes, 1)(numbers, inputs, *rest)

  rows = first + jnp.arange(inputs[0].shape[0], dtype=jnp.uint32)
  return jax.vmap(of_row)(inputs, tile.row_segments, tile.column_segments, rows)
