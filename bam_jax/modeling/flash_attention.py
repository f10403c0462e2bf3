"""Self-attention of long packed rows in tiles, by Triton kernels.

This is FlashAttention (Dao et al. 2022, arXiv:2205.14135) with the loops of
FlashAttention-2 (Dao 2023, arXiv:2307.08691). A GPU block holds one tile of
queries and visits the keys tile by tile with a running softmax, so no L x L
array exists. Tiles of other segments are skipped, so the cost depends on the
lengths of the segments, not on the square of the row length. The backward pass
computes the probabilities again. It has no atomic additions, so every run gives
the same bits.
"""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton
import jax.numpy as jnp

from bam_jax.modeling import attention_head

# Not tuned yet. A block's arrays must fit into its registers, so larger
# tiles and wider heads need more warps.
TILE = 64  # number of queries, and of keys, in a tile
_WARPS, _WARPS_WIDE = 4, 8
_WIDE = 64  # size above which heads need `_WARPS_WIDE`

# Triton multiplies matrices whose sides are powers of two, at least 16.
_NARROWEST, _WIDEST = 16, 128

_PRODUCT, _WITH_TRANSPOSED = (1, 0), (1, 1)  # axes of `attention_head.product`


class Arrays(NamedTuple):
  """Input arrays of the attention kernels.

  Attributes:
    first: [1] uint32, index of the device's first row in the whole batch.
    qkv: [B, L, 3, H, hd] queries, keys and values, before their bias is added.
    segment_ids: [B, L] int32; 0 marks padding.
    bias: [3, H, hd] bias of the queries, keys and values.
    dropout_bits: [2] uint32, random bits for the dropout mask.
  """

  first: jax.Array
  qkv: jax.Array
  segment_ids: jax.Array
  bias: jax.Array
  dropout_bits: jax.Array


def supports(length: int, head_size: int) -> bool:
  """Whether the kernels support this row length and head size."""
  return length % TILE == 0 and _NARROWEST <= head_size <= _WIDEST


def forward(
  rate: float,
  arrays: Arrays,
  window: int | None = None,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Computes attention within the segments of rows, for all heads.

  Args:
    rate: dropout rate, 0 to below 1.
    arrays: inputs, with B rows of L tokens.
    window: how many tokens before and after itself a query sees; None: no
      limit.
    interpret: whether to run in Pallas's interpreter, on any device.

  Returns:
    Contexts [B, L, H, hd]; and the log-sum-exp in base 2 of each query,
    [B, H, L] float32: log2 of the sum of exp(logit) over the keys that the
    query sees, or 0 if it sees no key.
  """
  size, length, _, num_heads, head_size = arrays.qkv.shape
  width = pl.next_power_of_2(head_size)
  contexts = jax.ShapeDtypeStruct(
    (size, length, num_heads, head_size), arrays.qkv.dtype
  )
  log_sums = jax.ShapeDtypeStruct((size, num_heads, length), jnp.float32)
  return _call(
    _forward_kernel,
    rate,
    arrays,
    window,
    (),
    (
      (contexts, _block((None, TILE, None, width), 'bth0')),
      (log_sums, _block((None, None, TILE), 'bht')),
    ),
    interpret,
  )


def backward(
  rate: float,
  arrays: Arrays,
  contexts: jax.Array,
  log_sums: jax.Array,
  gradient: jax.Array,
  window: int | None = None,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Computes the gradient of `qkv`, and the gradient's sum for each tile.

  Args:
    rate: dropout rate, 0 to below 1.
    arrays: inputs, with B rows of L tokens.
    contexts: [B, L, H, hd], from `forward`.
    log_sums: [B, H, L], from `forward`.
    gradient: [B, L, H, hd], gradient of the contexts.
    window: see `forward`.
    interpret: see `forward`.

  Returns:
    The gradient [B, L, 3, H, hd] in the dtype of `qkv`; and its sums over the
    tokens of each tile, [B, L / TILE, 3, H, hd] float32.
  """
  size, length, *heads = arrays.qkv.shape
  width = pl.next_power_of_2(heads[-1])
  # For each query, the sum of each probability times its gradient. It equals
  # the sum of context times gradient (FlashAttention, appendix B.2).
  means = gradient.astype(jnp.float32) * contexts.astype(jnp.float32)
  means = jnp.swapaxes(jnp.sum(means, axis=-1) * (1 - rate), 1, 2)
  row = _block((None, None, length), 'bh0')
  sums = jax.ShapeDtypeStruct((size, length // TILE, *heads), jnp.float32)
  return _call(
    _backward_kernel,
    rate,
    arrays,
    window,
    (
      (gradient, _block((None, length, None, width), 'b0h0')),
      (log_sums, row),
      (means, row),
    ),
    (
      (arrays.qkv, _block((None, TILE, 3, None, width), 'bt0h0')),
      (sums, _block((None, None, 3, None, width), 'bt0h0')),
    ),
    interpret,
  )


def tile_ranges(segment_ids: jax.Array, window: int | None = None) -> jax.Array:
  """Returns the range of tiles that each tile must visit, [B, L / TILE, 2].

  A range is (first tile, last tile + 1). A tile's range contains every tile
  with a segment in common, and also other tiles if the segment ids of the row
  do not ascend. The range of a tile of only padding is empty.

  Args:
    segment_ids: [B, L] int32; 0 marks padding.
    window: tiles whose tokens are all farther away than this, in tokens, are
      left out; None: no limit.
  """
  tiles = segment_ids.reshape(len(segment_ids), -1, TILE)
  largest = jnp.max(tiles, axis=2)
  smallest = jnp.min(
    jnp.where(tiles == 0, jnp.iinfo(jnp.int32).max, tiles), axis=2
  )
  meet = smallest[:, :, None] <= largest[:, None]
  meet &= jnp.swapaxes(meet, 1, 2)
  numbers = jnp.arange(tiles.shape[1])
  if window is not None:
    distance = jnp.abs(numbers[:, None] - numbers[None])
    meet &= (distance * TILE < window + TILE)[None]
  first = jnp.min(jnp.where(meet, numbers, len(numbers)), axis=2)
  last = jnp.max(jnp.where(meet, numbers + 1, 0), axis=2)
  return jnp.stack([first, last], axis=2)


class _Head(NamedTuple):
  """One head of one row in a kernel: references to arrays, and settings."""

  qkv: Any  # [L, 3, W], W being the head's size or the next power of two
  segments: Any  # [L]
  bias: Any  # [3, W]
  dropout_bits: tuple[jax.Array, jax.Array]
  first: jax.Array  # flat index of the head's first probability
  rate: float
  size: int
  window: int | None

  @property
  def scale(self) -> float:
    """Factor that makes a product of query and key an exponent of 2."""
    return self.size**-0.5 * math.log2(math.e)

  def load(self, part: int, places: Any) -> jax.Array:
    """Loads queries (part 0), keys (1) or values (2), with their bias."""
    x = _load(self.qkv.at[places, jnp.int32(part)], self.size)
    bias = _load(self.bias.at[jnp.int32(part)], self.size)
    return attention_head.add_bias(x, bias[None])

  def masks(
    self, row: jax.Array, column: jax.Array, transposed: bool = False
  ) -> attention_head.Tile:
    """Returns the masks of a tile of queries (rows) and keys (columns).

    `row` and `column` are numbers of tiles. If `transposed`, the rows are keys,
    and the columns are queries.
    """
    length = self.qkv.shape[0]
    strides = (1, length) if transposed else (length, 1)
    first = self.first
    for number, stride in zip((row, column), strides):
      first += number.astype(jnp.uint32) * jnp.uint32(TILE * stride)
    return attention_head.Tile(
      self.segments[_places(row)][:, None],
      self.segments[_places(column)][None],
      self.rate,
      self.dropout_bits,
      first,
      strides,
      self.window,
      (row - column) * TILE,
    )


def _forward_kernel(head, ranges, contexts_ref, log_sums_ref):
  own = pl.program_id(0)
  q = head.load(0, _places(own))

  def visit(other, carry):
    highest, total, contexts = carry
    k, v = (head.load(part, _places(other)) for part in (1, 2))
    masks = head.masks(own, other)
    logits = masks.mask(attention_head.product(q, k, _WITH_TRANSPOSED))
    before = highest
    highest = jnp.maximum(before, jnp.max(logits, axis=1, keepdims=True))
    weights = jnp.exp2(logits * head.scale - highest * head.scale)
    shrunk = jnp.exp2((before - highest) * head.scale)
    total = total * shrunk + jnp.sum(weights, axis=1, keepdims=True)
    dropped = jnp.maximum(masks.sign(weights), 0).astype(v.dtype)
    contexts *= shrunk
    contexts += attention_head.product(dropped, v, _PRODUCT)
    return highest, total, contexts

  # The maximum is kept above masked logits, so that the weights of a query that
  # sees no key are zero.
  highest = jnp.full((TILE, 1), attention_head.LOWEST / 2, jnp.float32)
  total = jnp.zeros((TILE, 1), jnp.float32)
  highest, total, contexts = jax.lax.fori_loop(
    ranges[0],
    ranges[1],
    visit,
    (highest, total, jnp.zeros(q.shape, jnp.float32)),
  )
  sees_none = total == 0
  contexts *= jnp.where(sees_none, 0, 1 / (total * (1 - head.rate)))
  _store(contexts_ref, contexts, head.size)
  log_sums = jnp.where(sees_none, 0, highest * head.scale + jnp.log2(total))
  log_sums_ref[...] = log_sums[:, 0]


def _backward_kernel(
  head, ranges, gradient_ref, log_sums_ref, means_ref, of_qkv_ref, sums_ref
):
  own = pl.program_id(0)
  places = _places(own)
  q, k, v = (head.load(part, places) for part in range(3))
  gradient = _load(gradient_ref.at[places], head.size)
  zeros = jnp.zeros(q.shape, jnp.float32)

  def of_logits(masks, logits, of_probs, log_sums, means):
    weights = jnp.exp2(masks.mask(logits) * head.scale - log_sums)
    probs = masks.sign(weights)
    of_probs = jnp.where(probs > 0, of_probs, 0)
    return probs, (jnp.abs(probs) * (of_probs - means)).astype(q.dtype)

  # Here the rows are the tile's keys, so that no left operand of a product is
  # transposed: Triton would compute that operand twice.
  def visit_queries(other, carry):
    of_k, of_v = carry
    others = _places(other)
    queries = head.load(0, others)
    gradients = _load(gradient_ref.at[others], head.size)
    probs, of_k_logits = of_logits(
      head.masks(own, other, transposed=True),
      attention_head.product(k, queries, _WITH_TRANSPOSED),
      attention_head.product(v, gradients, _WITH_TRANSPOSED),
      log_sums_ref[others][None],
      means_ref[others][None],
    )
    dropped = jnp.maximum(probs, 0).astype(v.dtype)
    of_k += attention_head.product(of_k_logits, queries, _PRODUCT)
    of_v += attention_head.product(dropped, gradients, _PRODUCT)
    return of_k, of_v

  def visit_keys(other, of_q):
    keys, values = (head.load(part, _places(other)) for part in (1, 2))
    _, of_q_logits = of_logits(
      head.masks(own, other),
      attention_head.product(q, keys, _WITH_TRANSPOSED),
      attention_head.product(gradient, values, _WITH_TRANSPOSED),
      log_sums_ref[places][:, None],
      means_ref[places][:, None],
    )
    return of_q + attention_head.product(of_q_logits, keys, _PRODUCT)

  kept = 1 / (1 - head.rate)
  scale = kept * head.size**-0.5

  def finish(part, value):
    part = jnp.int32(part)
    _store(of_qkv_ref.at[:, part], value, head.size)
    _store(sums_ref.at[part], jnp.sum(value, axis=0), head.size)

  of_k, of_v = jax.lax.fori_loop(
    ranges[0], ranges[1], visit_queries, (zeros, zeros)
  )
  finish(1, of_k * scale)
  finish(2, of_v * kept)
  of_q = jax.lax.fori_loop(ranges[0], ranges[1], visit_keys, zeros)
  finish(0, of_q * scale)


def _call(
  kernel: Callable,
  rate: float,
  arrays: Arrays,
  window: int | None,
  others: tuple[tuple[jax.Array, pl.BlockSpec], ...],
  outputs: tuple[tuple[jax.ShapeDtypeStruct, pl.BlockSpec], ...],
  interpret: bool,
) -> tuple[jax.Array, ...]:
  """Calls a kernel for each tile, row and head; returns its outputs.

  Args:
    kernel: called with the head, the range of tiles that it visits, and
      references to the blocks of `others` and `outputs`.
    rate: dropout rate.
    arrays: inputs for all rows.
    window: see `forward`.
    others: arrays that only this kernel reads, each with its block spec.
    outputs: shapes of the arrays that the kernel writes, each with its block
      spec.
    interpret: whether to run in Pallas's interpreter.
  """
  size, length, _, num_heads, head_size = arrays.qkv.shape
  width = pl.next_power_of_2(head_size)
  inputs = (
    (arrays.qkv, _block((None, length, 3, None, width), 'b00h0')),
    (arrays.segment_ids, _block((None, length), 'b0')),
    (arrays.bias, _block((3, None, width), '0h0')),
    (arrays.dropout_bits, _block((2,), '0')),
    (arrays.first, _block((1,), '0')),
    (tile_ranges(arrays.segment_ids, window), _block((None, None, 2), 'bt0')),
    *others,
  )

  def run(qkv, segments, bias, dropout_bits, first, ranges, *refs):
    # `program_id` is read here, because Pallas's interpreter cannot read it in
    # a loop.
    row = first[0] + pl.program_id(1).astype(jnp.uint32)
    place = attention_head.first_index(row, pl.program_id(2), num_heads, length)
    dropout_bits = dropout_bits[0], dropout_bits[1]
    head = _Head(
      qkv, segments, bias, dropout_bits, place, rate, head_size, window
    )
    kernel(head, (ranges[0], ranges[1]), *refs)

  return pl.pallas_call(
    run,
    grid=(length // TILE, size, num_heads),
    in_specs=[block for _, block in inputs],
    out_specs=[block for _, block in outputs],
    out_shape=[
      jax.ShapeDtypeStruct(shape.shape, shape.dtype) for shape, _ in outputs
    ],
    compiler_params=pltriton.CompilerParams(
      num_warps=_WARPS if width <= _WIDE else _WARPS_WIDE, num_stages=1
    ),
    interpret=interpret,
    name=f'flash{kernel.__name__.removesuffix("_kernel")}',
  )(*(array for array, _ in inputs))


def _block(shape: tuple[int | None, ...], index: str) -> pl.BlockSpec:
  """Makes a block spec, given each axis's block index as a letter in `index`.

  The letter t stands for the number of the tile, b for that of the row, and h
  for that of the head. 0 is the index 0.
  """
  return pl.BlockSpec(
    shape,
    lambda tile, row, head: tuple(
      {'t': tile, 'b': row, 'h': head, '0': 0}[axis] for axis in index
    ),
  )


def _places(tile: jax.Array) -> Any:
  return pl.ds(tile * TILE, TILE)


def _inside(ref: Any, size: int) -> jax.Array | None:
  """Returns a mask that is False in a head's padding; None without padding.

  Heads are padded if their size is not a power of two.
  """
  if ref.shape[-1] == size:
    return None
  return jax.lax.broadcasted_iota(jnp.int32, ref.shape, ref.ndim - 1) < size


def _load(ref: Any, size: int) -> jax.Array:
  mask = _inside(ref, size)
  other = None if mask is None else 0
  return pltriton.load(ref, mask=mask, other=other)


def _store(ref: Any, value: jax.Array, size: int) -> None:
  pltriton.store(ref, value.astype(ref.dtype), mask=_inside(ref, size))
