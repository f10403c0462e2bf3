"""Self-attention within the segments of packed rows.

`attention_head` is applied to all heads of all rows: by a Triton kernel on
NVIDIA GPUs, by a Mosaic kernel on TPUs, and by `vmap` elsewhere. Long rows are
computed by `flash_attention` on NVIDIA GPUs, and elsewhere in blocks of
queries. In the kernels the probabilities never leave the chip. All of these
compute the same dropout mask; library kernels (cuDNN, splash) can't.
"""

from collections.abc import Callable
import functools
import itertools
from typing import NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas import triton as pltriton
import jax.numpy as jnp

from bam_jax.modeling import attention_head
from bam_jax.modeling import family
from bam_jax.modeling import flash_attention
from bam_jax.modeling import kernels
from bam_jax.modeling import xla_attention

# The [L, L] arrays of a head must fit into the registers of a GPU block. The
# forward pass has fewer queries per block, so that several blocks run at once.
_LONGEST_ROW = 128
_QUERIES = 64
_SHORTEST = 16  # smallest side of a matrix that Triton multiplies

# The same limits for a TPU core, whose memory (16 MiB in a v4) also holds the
# queries, keys and values of the row. In rows longer than `_LONGEST_ROW`, each
# of these three arrays may have at most `_BYTES_OF_TPU`.
_LONGEST_ROW_OF_TPU = 512
_QUERIES_OF_TPU = 256
_BYTES_OF_TPU = 2 * 256 * 1024

# Without a kernel, longer rows are computed in blocks of queries.
_LONGEST_WHOLE = 512


def attend(
  qkv: jax.Array,
  bias: jax.Array,
  segment_ids: jax.Array,
  rate: float,
  dropout_bits: jax.Array,
  compute: family.Compute = family.ONE_DEVICE,
  window: int | None = None,
) -> jax.Array:
  """Computes scaled dot-product attention within each segment.

  A token sees the tokens of its own segment that are within the window. Padding
  (segment 0) sees nothing, and its context is zero, so that a row of only
  padding stays finite.

  Args:
    qkv: [B, L, 3, H, hd] queries, keys and values, before their bias is added;
      hd is the size of a head.
    bias: [3, H, hd] bias of the queries, keys and values.
    segment_ids: [B, L] int; 0 marks padding.
    rate: share of the probabilities that dropout sets to zero, 0 to below 1.
    dropout_bits: [2] uint32, random bits for the dropout mask; not read if
      `rate` is 0.
    compute: the devices that share the rows, and the platform whose kernel is
      used if the kernel supports this shape.
    window: how many tokens before and after itself a token sees; None: its
      whole segment.

  Returns:
    [B, L, H, hd] contexts in the dtype of `qkv`. The softmax is in float32.
  """
  return kernels.map_over_devices(
    functools.partial(_attend, _Options(rate, compute.platform, window)),
    compute.mesh,
    (qkv, segment_ids.astype(jnp.int32)),
    (bias, dropout_bits),
  )


def attend_from(
  queries: jax.Array,
  keys_values: jax.Array,
  bias: jax.Array,
  segments: tuple[jax.Array, jax.Array],
  rate: float,
  dropout_bits: jax.Array,
  compute: family.Compute = family.ONE_DEVICE,
) -> jax.Array:
  """Computes attention within segments for some queries of each row, by XLA.

  Args:
    queries: [B, S, H, hd] queries, before their bias is added.
    keys_values: [B, L, 2, H, hd] keys and values, before their bias is added.
    bias: [3, H, hd] bias of the queries, keys and values.
    segments: segment of each query, [B, S] int, and of each key, [B, L] int; 0
      marks padding.
    rate: see `attend`.
    dropout_bits: see `attend`; the same bits give another mask here.
    compute: see `attend`.

  Returns:
    [B, S, H, hd] contexts in the dtype of the queries.
  """
  dtype = queries.dtype
  arrays = [
    attention_head.add_bias(x, own[None, None])
    for x, own in zip((queries, *jnp.moveaxis(keys_values, 2, 0)), bias)
  ]
  if compute.platform == 'cpu':  # See `_over_heads`.
    arrays = [x.astype(jnp.float32) for x in arrays]
  return xla_attention.attend_queries(
    rate, *arrays, *segments, dropout_bits
  ).astype(dtype)


class _Options(NamedTuple):
  """Static settings of a compiled attention program; see `attend`."""

  rate: float
  platform: str
  window: int | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(options, first, qkv, segment_ids, bias, dropout_bits):
  """Computes attention on one device.

  `first`, [1] uint32, is the index, in the whole batch, of the device's first
  row.
  """
  arrays = flash_attention.Arrays(first, qkv, segment_ids, bias, dropout_bits)
  return _attend_forward(options, *arrays)[0]


def _attend_forward(options, *arrays):
  arrays = flash_attention.Arrays(*arrays)
  first, qkv, segment_ids, bias, dropout_bits = arrays
  if _is_tiled(options, qkv):
    contexts, log_sums = flash_attention.forward(
      options.rate, arrays, options.window
    )
    return contexts, (arrays, (contexts, log_sums))
  (contexts,) = _over_heads(
    attention_head.forward,
    options,
    (qkv,),
    segment_ids,
    first,
    bias,
    dropout_bits,
  )
  return contexts, (arrays, ())


def _attend_backward(options, saved, gradient):
  # Recomputing the probabilities is cheaper than keeping them.
  arrays, results = saved
  first, qkv, segment_ids, bias, dropout_bits = arrays
  if _is_tiled(options, qkv):
    of_qkv, sums = flash_attention.backward(
      options.rate, arrays, *results, gradient, options.window
    )
    sums = sums.reshape(-1, *bias.shape)
  else:
    inputs = qkv, gradient
    of_qkv, sums = _over_heads(
      attention_head.backward,
      options,
      inputs,
      segment_ids,
      first,
      bias,
      dropout_bits,
    )
  # The barrier keeps XLA from fusing the sum into the operations that use it.
  of_bias = jax.lax.optimization_barrier(jnp.sum(sums, axis=0))
  return None, of_qkv, None, of_bias.astype(bias.dtype), None


_attend.defvjp(_attend_forward, _attend_backward)


def _over_heads(
  function: Callable,
  options: _Options,
  arrays: tuple[jax.Array, ...],
  *rest: jax.Array,
) -> tuple[jax.Array, ...]:
  """Applies `forward` or `backward` of `attention_head` to all heads.

  `arrays` holds queries, keys and values [B, L, 3, H, hd], and for the backward
  pass the gradient [B, L, H, hd] of the contexts. The forward pass returns the
  contexts [B, L, H, hd]. The backward pass returns the gradient of queries,
  keys and values, [B, L, 3, H, hd], and the sums of this gradient over the
  tokens of each row, [B, 3, H, hd].
  """
  rate, platform, window = options
  dtype, length = arrays[0].dtype, arrays[0].shape[1]
  if platform == 'cpu' and dtype != jnp.float32:
    # For some layouts XLA's CPU backend cannot multiply bfloat16 arrays with a
    # float32 result, and reports this only when the program runs.
    wide = tuple(x.astype(jnp.float32) for x in arrays)
    result, *sums = _over_heads(function, options, wide, *rest)
    return (result.astype(dtype), *sums)
  way = xla_attention.apply_to_rows
  if not isinstance(length, int):
    way = _choose_by_length  # The length is a symbol in exported programs.
  elif length > _LONGEST_WHOLE:
    way = xla_attention.apply_to_blocks
  if platform == 'tpu' and _fits_tpu(arrays[0]):
    way = _run_mosaic
  if platform == 'cuda' and _is_one_block(arrays[0]):
    way = _run_triton
  return way(function, rate, arrays, *rest, window)


def _choose_by_length(
  function: Callable, rate: float, arrays: tuple[jax.Array, ...], *rest
) -> tuple[jax.Array, ...]:
  """Computes attention: short rows at once, long rows in blocks of queries.

  Exported programs use this function, because their length is a symbol until
  they are compiled. The compiler keeps only one of the two branches.
  """
  *rest, window = rest
  ways = (
    functools.partial(way, function, rate, window=window)
    for way in (xla_attention.apply_to_blocks, xla_attention.apply_to_rows)
  )
  is_long = jnp.int32(arrays[0].shape[1]) > _LONGEST_WHOLE
  return jax.lax.cond(is_long, *ways, arrays, *rest)


def _fits_tpu(qkv: jax.Array) -> bool:
  """Whether the Mosaic kernel supports rows of this length and width."""
  length, _, num_heads, head_size = qkv.shape[1:]
  is_whole = length % min(length, _QUERIES_OF_TPU) == 0
  size = length * num_heads * head_size * qkv.dtype.itemsize
  if length > _LONGEST_ROW and size > _BYTES_OF_TPU:
    return False
  return is_whole and length % 8 == 0 and length <= _LONGEST_ROW_OF_TPU


def _is_one_block(qkv: jax.Array) -> bool:
  """Whether one GPU block can hold all keys of a row."""
  sides = qkv.shape[1], qkv.shape[4]
  is_power = all(side.bit_count() == 1 for side in sides)
  return is_power and min(sides) >= _SHORTEST and sides[0] <= _LONGEST_ROW


def _is_tiled(options: _Options, qkv: jax.Array) -> bool:
  """Whether to use `flash_attention`.

  It is for rows whose keys do not fit into one GPU block.
  """
  if options.platform != 'cuda' or _is_one_block(qkv):
    return False
  return flash_attention.supports(qkv.shape[1], qkv.shape[4])


def _run_triton(
  function,
  rate,
  arrays,
  segment_ids,
  first,
  bias,
  dropout_bits,
  window=None,
  interpret=False,
):
  """Runs a Triton kernel with a block per row, head and group of queries.

  A group has at most 64 queries in the forward pass, and all queries of the row
  in the backward pass.
  """
  size, length, _, num_heads, _ = arrays[0].shape
  backward = function is attention_head.backward
  queries = length if backward else min(length, _QUERIES)

  def kernel(*refs):
    array_refs, refs = refs[: len(arrays)], refs[len(arrays) :]
    segments_ref, first_ref, bias_ref, bits_ref, *out_refs = refs
    row, head = pl.program_id(0), pl.program_id(1)
    start = pl.program_id(2) * queries
    some, every = pl.ds(start, queries), pl.ds(0, length)
    inputs = tuple(
      attention_head.add_bias(
        array_refs[0][row, places, part, head, :], bias_ref[part, head, :][None]
      )
      for part, places in enumerate((some, every, every))
    )
    if backward:
      inputs += (array_refs[1][row, :, head, :],)
    place = attention_head.first_index(
      first_ref[0] + row.astype(jnp.uint32), head, num_heads, length
    )
    tile = attention_head.Tile(
      segments_ref[row, some][:, None],
      segments_ref[row, :][None],
      rate,
      (bits_ref[0], bits_ref[1]),
      place + start.astype(jnp.uint32) * jnp.uint32(length),
      (length, 1),
      window,
      start,
    )
    outputs = function(tile, *inputs)
    for part, output in enumerate(outputs):
      value = output.astype(out_refs[0].dtype)
      if backward:
        out_refs[0][row, :, part, head, :] = value
        out_refs[1][row, part, head, :] = jnp.sum(output, axis=0)
      else:
        out_refs[0][row, some, head, :] = value

  rest = segment_ids, first, bias, dropout_bits
  way = functools.partial(xla_attention.apply_to_rows, function, rate)
  out_shape = jax.eval_shape(way, arrays, *rest)
  whole = pl.BlockSpec(memory_space=pl.ANY)
  return pl.pallas_call(
    kernel,
    grid=(size, num_heads, length // queries),
    in_specs=[whole] * (len(arrays) + 4),
    out_specs=(whole,) * len(out_shape),
    out_shape=out_shape,
    compiler_params=pltriton.CompilerParams(
      num_warps=8 if backward else 4, num_stages=1
    ),
    interpret=interpret,
    name=f'head_{function.__name__}',
  )(*arrays, *rest)


def _run_mosaic(
  function,
  rate,
  arrays,
  segment_ids,
  first,
  bias,
  dropout_bits,
  window=None,
  interpret=False,
):
  """Runs a Mosaic kernel with one grid step per row."""
  size, length, _, num_heads, head_size = arrays[0].shape
  backward = function is attention_head.backward
  width = num_heads * head_size
  queries = length if backward else min(length, _QUERIES_OF_TPU)

  def kernel(*refs):
    array_refs, refs = refs[: len(arrays)], refs[len(arrays) :]
    queries_ref, keys_ref, bias_ref, first_ref, bits_ref, *out_refs = refs
    dropout_bits = bits_ref[0], bits_ref[1]
    row = first_ref[0] + pl.program_id(0).astype(jnp.uint32)
    for head, start in itertools.product(
      range(num_heads), range(0, length, queries)
    ):
      some, every = pl.ds(start, queries), pl.ds(0, length)
      places = [
        pl.ds(part * width + head * head_size, head_size) for part in range(3)
      ]
      inputs = tuple(
        attention_head.add_bias(
          array_refs[0][0, tokens, place], bias_ref[:, place]
        )
        for tokens, place in zip((some, every, every), places)
      )
      if backward:
        inputs += (array_refs[1][0, :, places[0]],)
      first = attention_head.first_index(row, head, num_heads, length)
      tile = attention_head.Tile(
        queries_ref[0, some],
        keys_ref[0],
        rate,
        dropout_bits,
        first + jnp.uint32(start * length),
        (length, 1),
        window,
        start,
      )
      outputs = function(tile, *inputs)
      for place, output in zip(places, outputs):
        out_refs[0][0, some, place] = output.astype(out_refs[0].dtype)
        if backward:
          out_refs[1][0, :, place] = jnp.sum(output, axis=0, keepdims=True)

  def block(array):
    return pl.BlockSpec((1, *array.shape[1:]), lambda row: (row, 0, 0))

  flat = [array.reshape(size, length, -1) for array in arrays]
  flat += [segment_ids[:, :, None], segment_ids[:, None]]
  way = functools.partial(xla_attention.apply_to_rows, function, rate)
  shapes = jax.eval_shape(way, arrays, segment_ids, first, bias, dropout_bits)
  lanes = width * (3 if backward else 1)
  out_shape = [
    jax.ShapeDtypeStruct((size, rows, lanes), shape.dtype)
    for rows, shape in zip((length, 1), shapes)
  ]
  results = pl.pallas_call(
    kernel,
    grid=size,
    in_specs=[block(array) for array in flat]
    + [pl.BlockSpec((1, 3 * width), lambda row: (0, 0))]
    + [pl.BlockSpec(memory_space=pltpu.SMEM)] * 2,
    out_specs=[block(array) for array in out_shape],
    out_shape=out_shape,
    interpret=interpret,
    name=f'head_{function.__name__}',
  )(*flat, bias.reshape(1, -1), first, dropout_bits)
  return tuple(x.reshape(y.shape) for x, y in zip(results, shapes))
