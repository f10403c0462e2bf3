"""Self-attention within the segments of packed rows.

One head of one row at a time (`_head_forward`, `_head_backward`), in float32
but for the operands of the products. Three ways lead over all heads of all
rows: a Triton kernel on NVIDIA GPUs and a Mosaic kernel on TPUs, in which the
[L, L] probabilities never leave the chip, and `vmap` elsewhere. All see the
same dropout mask. Library kernels (cuDNN, splash) have no such mask.
"""

from collections.abc import Callable
import functools

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas import triton as pltriton
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from bam_jax.modeling import dropout

# The [L, L] arrays of a head must fit into the registers of a GPU's block.
_LONGEST_ROW = 128
_SHORTEST = 16  # of any side of a product that Triton takes


def attend(
  qkv: jax.Array,
  segment_ids: jax.Array,
  dropout_rate: float,
  deterministic: bool,
  rng: jax.Array | None,
  mesh: Mesh | None = None,
  kernel: bool = True,
) -> jax.Array:
  """Scaled dot-product attention that never leaves a segment.

  A token sees the tokens of its own segment. Padding, segment 0, sees nothing
  and its context is zero, so that a row of padding alone stays finite.

  Args:
    qkv: [B, L, 3, H, hd] queries, keys and values; hd is the size of a head.
    segment_ids: [B, L] int; 0 marks padding.
    dropout_rate: share of the probabilities set to zero, 0 to below 1.
    deterministic: no dropout.
    rng: key of the dropout mask; not used without dropout.
    mesh: the rows lie spread over all its axes; None: on one device.
    kernel: use the platform's own, if it has one for this shape.

  Returns:
    [B, L, H, hd] contexts in the type of `qkv`. The softmax is in float32.
  """
  rate = 0.0 if deterministic else dropout_rate
  words = jnp.zeros(2, jnp.uint32)
  if rate > 0:
    words = dropout.mask_words(rng)
  # The mask goes by the row's number in the whole batch, not on its device.
  rows = jnp.arange(len(qkv), dtype=jnp.uint32)
  function = functools.partial(_attend, (rate, kernel))
  if mesh is not None and mesh.size > 1:
    batch = P(mesh.axis_names)
    function = jax.shard_map(
      function,
      mesh=mesh,
      in_specs=(batch, batch, batch, P()),
      out_specs=batch,
      check_vma=False,
    )
  return function(qkv, segment_ids.astype(jnp.int32), rows, words)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
  options: tuple[float, bool],
  qkv: jax.Array,
  segment_ids: jax.Array,
  rows: jax.Array,
  words: jax.Array,
) -> jax.Array:
  """[B, L, 3, H, hd], [B, L], [B] and [2] uint32 -> [B, L, H, hd].

  The options are the rate of dropout and whether to use a platform's kernel.
  """
  return _over_heads(_head_forward, options, (qkv,), segment_ids, rows, words)


def _attend_forward(options, *arrays):
  return _attend(options, *arrays), arrays


def _attend_backward(options, saved, gradient):
  # The probabilities are computed again: cheaper than to keep them.
  qkv, *rest = saved
  arrays = (qkv, gradient)
  return _over_heads(_head_backward, options, arrays, *rest), None, None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _head_forward(
  inputs: tuple[jax.Array, jax.Array, jax.Array],
  mask: jax.Array,
  kept: jax.Array | None,
  rate: float,
) -> tuple[jax.Array, ...]:
  """One head of one row.

  Args:
    inputs: queries, keys and values [L, hd].
    mask: [L, L] bool, whether a query sees a key.
    kept: [L, L] bool, what dropout leaves; None: all.
    rate: of dropout.

  Returns:
    The contexts [L, hd], alone in a tuple.
  """
  q, k, v = inputs
  probs = _probabilities(q, k, mask)
  return (_product(_dropped(probs, kept, rate).astype(v.dtype), v, (1, 0)),)


def _head_backward(
  inputs: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
  mask: jax.Array,
  kept: jax.Array | None,
  rate: float,
) -> tuple[jax.Array, ...]:
  """The gradients of queries, keys and values, given that of the contexts."""
  q, k, v, gradient = inputs
  probs = _probabilities(q, k, mask)
  of_probs = _dropped(_product(gradient, v, (1, 1)), kept, rate)
  of_v = _product(_dropped(probs, kept, rate).astype(v.dtype), gradient, (0, 0))
  of_logits = probs * (
    of_probs - jnp.sum(probs * of_probs, axis=1, keepdims=True)
  )
  of_logits = (of_logits * q.shape[-1] ** -0.5).astype(q.dtype)
  return _product(of_logits, k, (1, 0)), _product(of_logits, q, (0, 0)), of_v


def _probabilities(q: jax.Array, k: jax.Array, mask: jax.Array) -> jax.Array:
  """[L, L] float32; zero where the mask is False."""
  logits = _product(q, k, (1, 1)) * q.shape[-1] ** -0.5
  logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
  weights = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
  weights = weights / jnp.sum(weights, axis=1, keepdims=True)
  return jnp.where(mask, weights, 0.0)


def _dropped(x: jax.Array, kept: jax.Array | None, rate: float) -> jax.Array:
  return x if kept is None else jnp.where(kept, x / (1 - rate), 0.0)


def _product(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
  """The matrix product over one axis of each, summed and left in float32."""
  return jax.lax.dot_general(
    a,
    b,
    (((axes[0],), (axes[1],)), ((), ())),
    preferred_element_type=jnp.float32,
  )


def _over_heads(
  function: Callable,
  options: tuple[float, bool],
  arrays: tuple[jax.Array, ...],
  segment_ids: jax.Array,
  rows: jax.Array,
  words: jax.Array,
) -> jax.Array:
  """Computes a function of each head of each row, as the platform does best.

  Args:
    function: `_head_forward` or `_head_backward`.
    options: the rate of dropout, and whether to use a platform's kernel.
    arrays: [B, L, 3, H, hd], and for the backward pass [B, L, H, hd].
    segment_ids: [B, L] int32.
    rows: [B] uint32.
    words: [2] uint32.

  Returns:
    [B, L, H, hd], or for the backward pass [B, L, 3, H, hd].
  """
  rate, kernel = options
  choices = {'default': _by_vmap}
  length, _, _, head_size = arrays[0].shape[1:]
  if kernel and length <= _LONGEST_ROW:
    if all(
      size >= _SHORTEST and size.bit_count() == 1
      for size in (length, head_size)
    ):
      choices['cuda'] = _by_triton
    if length % 8 == 0:
      choices['tpu'] = _by_mosaic
  return jax.lax.platform_dependent(
    arrays,
    segment_ids,
    rows,
    words,
    **{
      platform: functools.partial(way, function, rate)
      for platform, way in choices.items()
    },
  )


def _mask(query_segments: jax.Array, key_segments: jax.Array) -> jax.Array:
  """[L, L] bool of [L, 1] and [1, L] int: whether a query sees a key."""
  return (query_segments == key_segments) & (query_segments != 0)


def _kept(
  rate: float,
  words: tuple[jax.Array, jax.Array],
  row: jax.Array,
  head: jax.Array | int,
  num_heads: int,
  length: int,
) -> jax.Array | None:
  """The dropout mask of a head: its part of that of [B, H, L, L]."""
  if rate == 0:
    return None
  number = row * jnp.uint32(num_heads) + jnp.asarray(head).astype(jnp.uint32)
  first = number * jnp.uint32(length * length)
  index = first + dropout.flat_index((length, length))
  return dropout.keep(words, rate, index)


def _by_vmap(function, rate, arrays, segment_ids, rows, words):
  """Without a kernel of its own."""
  _, length, _, num_heads, _ = arrays[0].shape

  def head(number, inputs, segments, row):
    mask = _mask(segments[:, None], segments[None])
    kept = _kept(rate, tuple(words), row, number, num_heads, length)
    return function(inputs, mask, kept, rate)

  def of_row(inputs, segments, row):
    numbers = jnp.arange(num_heads)
    return jax.vmap(head, (0, 1, None, None), 1)(numbers, inputs, segments, row)

  qkv, *others = arrays
  inputs = (qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], *others)
  outputs = jax.vmap(of_row)(inputs, segment_ids, rows)
  outputs = [output.astype(qkv.dtype) for output in outputs]
  return outputs[0] if len(outputs) == 1 else jnp.stack(outputs, axis=2)


def _by_triton(
  function, rate, arrays, segment_ids, rows, words, interpret=False
):
  """One block of threads for each head of each row."""
  size, length, _, num_heads, head_size = arrays[0].shape
  backward = function is _head_backward

  def kernel(*refs):
    *array_refs, segments_ref, rows_ref, words_ref, out_ref = refs
    row, head = pl.program_id(0), pl.program_id(1)
    inputs = tuple(array_refs[0][row, :, part, head, :] for part in range(3))
    if backward:
      inputs += (array_refs[1][row, :, head, :],)
    segments = segments_ref[row, :]
    mask = _mask(segments[:, None], segments[None])
    kept = _kept(
      rate,
      (words_ref[0], words_ref[1]),
      rows_ref[row],
      head,
      num_heads,
      length,
    )
    outputs = function(inputs, mask, kept, rate)
    for part, output in enumerate(outputs):
      where = (
        (row, slice(None), part, head) if backward else (row, slice(None), head)
      )
      out_ref[where] = output.astype(out_ref.dtype)

  shape = (size, length, *((3,) if backward else ()), num_heads, head_size)
  whole = pl.BlockSpec(memory_space=pl.ANY)
  return pl.pallas_call(
    kernel,
    grid=(size, num_heads),
    in_specs=[whole] * (len(arrays) + 3),
    out_specs=whole,
    out_shape=jax.ShapeDtypeStruct(shape, arrays[0].dtype),
    compiler_params=pltriton.CompilerParams(num_warps=8, num_stages=1),
    interpret=interpret,
    name=function.__name__.lstrip('_'),
  )(*arrays, segment_ids, rows, words)


def _by_mosaic(
  function, rate, arrays, segment_ids, rows, words, interpret=False
):
  """One step of the grid for each row; its heads are slices of the lanes."""
  size, length, _, num_heads, head_size = arrays[0].shape
  backward = function is _head_backward
  width = num_heads * head_size

  def kernel(*refs):
    *array_refs, queries_ref, keys_ref, rows_ref, words_ref, out_ref = refs
    mask = _mask(queries_ref[0], keys_ref[0])
    words = words_ref[0], words_ref[1]
    row = rows_ref[pl.program_id(0)]
    for head in range(num_heads):
      starts = [part * width + head * head_size for part in range(3)]
      inputs = tuple(
        array_refs[0][0, :, start : start + head_size] for start in starts
      )
      if backward:
        inputs += (array_refs[1][0, :, starts[0] : starts[0] + head_size],)
      kept = _kept(rate, words, row, head, num_heads, length)
      outputs = function(inputs, mask, kept, rate)
      for start, output in zip(starts, outputs):
        value = output.astype(out_ref.dtype)
        out_ref[0, :, start : start + head_size] = value

  def block(array):
    return pl.BlockSpec((1, *array.shape[1:]), lambda row: (row, 0, 0))

  arrays = [array.reshape(size, length, -1) for array in arrays]
  arrays += [segment_ids[:, :, None], segment_ids[:, None]]
  out = jax.ShapeDtypeStruct(
    (size, length, width * (3 if backward else 1)), arrays[0].dtype
  )
  result = pl.pallas_call(
    kernel,
    grid=size,
    in_specs=[block(array) for array in arrays]
    + [pl.BlockSpec(memory_space=pltpu.SMEM)] * 2,
    out_specs=block(out),
    out_shape=out,
    interpret=interpret,
    name=function.__name__.lstrip('_'),
  )(*arrays, rows, words)
  shape = (3, num_heads, head_size) if backward else (num_heads, head_size)
  return result.reshape(size, length, *shape)
