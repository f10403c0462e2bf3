"""Residual connection, dropout and LayerNorm (Ba et al. 2016) in one pass.

LayerNorm(x + dropout(y + bias)), N tokens of D numbers. On an NVIDIA GPU a
Triton kernel reads and writes each array once, and adds up the gradients of
bias, scale and shift on its way; XLA needs a kernel for each reduction.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton
import jax.numpy as jnp
from jax.sharding import Mesh

from bam_jax.modeling import dropout
from bam_jax.modeling import kernels

# A block takes so many numbers at once, of all columns; backward it goes
# through so many tokens.
_TILE = 1024
_TOKENS = 8
_WIDEST = 4096  # columns


class Options(NamedTuple):
  """What a program is compiled for.

  Attributes:
    rate: of dropout, 0 to below 1.
    epsilon: added to the variance.
    platform: whose own kernel is used, if it has one; empty: XLA's.
  """

  rate: float
  epsilon: float
  platform: str


class AddNorm(nn.Module):
  """LayerNorm(x + dropout(y + bias)), with LayerNorm's parameters.

  Attributes:
    epsilon: added to the variance.
    mesh: the rows lie spread over all its axes; None: on one device.
    platform: whose own kernel is used, if it has one; empty: XLA's.
  """

  epsilon: float
  mesh: Mesh | None = None
  platform: str = ''

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    y: jax.Array,
    bias: jax.Array,
    rate: float,
    words: jax.Array,
  ) -> jax.Array:
    """Adds and normalises; the statistics are float32.

    Args:
      x: [B, L, D], what goes past.
      y: [B, L, D], what is added, of the same type.
      bias: [D], of y.
      rate: of dropout, 0 to below 1.
      words: [2] uint32 of the dropout mask; not read at rate 0.

    Returns:
      [B, L, D] of the type of `x`.
    """
    size = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (size,))
    shift = self.param('bias', nn.initializers.zeros, (size,))
    return kernels.over_devices(
      functools.partial(_add_norm, Options(rate, self.epsilon, self.platform)),
      self.mesh,
      (x, y),
      (bias, scale, shift, words),
    )


def _add_norm(options, first, x, y, bias, scale, shift, words):
  length, size = x.shape[1:]
  result = _flat_add_norm(
    options,
    first * jnp.uint32(length),
    x.reshape(-1, size),
    y.reshape(-1, size),
    bias,
    scale,
    shift,
    words,
  )
  return result.reshape(x.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _flat_add_norm(
  options: Options,
  first: jax.Array,
  x: jax.Array,
  y: jax.Array,
  bias: jax.Array,
  scale: jax.Array,
  shift: jax.Array,
  words: jax.Array,
) -> jax.Array:
  """[1], [N, D], [N, D], [D], [D], [D] and [2] -> [N, D].

  The first is the number of the first token in the whole batch.
  """
  return _forward(options, first, x, y, bias, scale, shift, words)[0]


def _forward(options, first, x, y, bias, scale, shift, words):
  way = _forward_by_triton if _has_kernel(options, x) else _forward_by_xla
  result, *saved = way(options, first, x, y, bias, scale, shift, words)
  return result, (first, *saved, bias, scale, words)


def _backward(options, saved, gradient):
  first, total, mean, inverse, bias, scale, words = saved
  way = _backward_by_triton if _has_kernel(options, total) else _backward_by_xla
  of_x, of_y, sums = way(
    options, first, gradient, total, mean, inverse, scale, words
  )
  # Summed before anything is done with it: else XLA sums where it is used.
  of_bias, of_scale, of_shift = jax.lax.optimization_barrier(sums)
  of_bias = of_bias.astype(bias.dtype)
  return None, of_x, of_y, of_bias, of_scale, of_shift, None


_flat_add_norm.defvjp(_forward, _backward)


def _has_kernel(options: Options, x: jax.Array) -> bool:
  return options.platform == 'cuda' and x.shape[1] <= _WIDEST


def _forward_tile(x, y, bias, scale, shift, kept, valid, size, options):
  """Some tokens. x, y, kept [n, W]; the rest [1, W]; zero from `size` on.

  Returns:
    The result, what was normalised [n, W], its mean and the inverse of its
    deviation [n, 1].
  """
  y = y.astype(jnp.float32) + bias.astype(jnp.float32)
  total = x.astype(jnp.float32) + dropout.scale_kept(y, kept, options.rate)
  total = total.astype(x.dtype)  # as the backward pass will read it
  wide = total.astype(jnp.float32)
  mean = jnp.sum(wide, axis=1, keepdims=True) / size
  centred = jnp.where(valid, wide - mean, 0.0)
  variance = jnp.sum(centred * centred, axis=1, keepdims=True) / size
  inverse = jax.lax.rsqrt(variance + options.epsilon)
  result = centred * inverse * scale + shift
  return result.astype(x.dtype), total, mean, inverse


def _backward_tile(
  gradient, total, mean, inverse, scale, kept, valid, size, options
):
  """Some tokens.

  Returns:
    The gradients of x and y [n, W], and the tokens' shares [n, W] of those of
    bias, scale and shift.
  """
  gradient = gradient.astype(jnp.float32)
  normal = (total.astype(jnp.float32) - mean) * inverse
  normal = jnp.where(valid, normal, 0.0)
  scaled = gradient * scale
  of_total = inverse * (
    scaled
    - jnp.sum(scaled, axis=1, keepdims=True) / size
    - normal * (jnp.sum(scaled * normal, axis=1, keepdims=True) / size)
  )
  of_total = jnp.where(valid, of_total, 0.0)
  of_y = dropout.scale_kept(of_total, kept, options.rate)
  return of_total, of_y, (of_y, gradient * normal, gradient)


def _kept(options, words, first, shape, size):
  """The mask [n, W] of tokens from `first` on; None without dropout."""
  if options.rate == 0:
    return None
  first *= jnp.uint32(size)
  return dropout.keep_tile(words, options.rate, first, shape, size)


def _forward_by_xla(options, first, x, y, bias, scale, shift, words):
  size = x.shape[1]
  kept = _kept(options, (words[0], words[1]), first[0], x.shape, size)
  row = [value[None] for value in (bias, scale, shift)]
  return _forward_tile(x, y, *row, kept, True, size, options)


def _backward_by_xla(
  options, first, gradient, total, mean, inverse, scale, words
):
  size = total.shape[1]
  kept = _kept(options, (words[0], words[1]), first[0], total.shape, size)
  of_x, of_y, shares = _backward_tile(
    gradient, total, mean, inverse, scale[None], kept, True, size, options
  )
  sums = jnp.stack([jnp.sum(share, axis=0) for share in shares])
  return of_x.astype(total.dtype), of_y.astype(total.dtype), sums


def _tile(count: int, size: int) -> tuple[int, int]:
  """Tokens and columns, powers of two, of a tile: all columns, and more."""
  width = pl.next_power_of_2(size)
  return kernels.divisor(count, max(_TILE // width, 1)), width


def _forward_by_triton(
  options, first, x, y, bias, scale, shift, words, interpret=False
):
  count, size = x.shape
  height, width = _tile(count, size)

  def kernel(
    first_ref, x_ref, y_ref, bias_ref, scale_ref, shift_ref, words_ref, *out
  ):
    valid = dropout.flat_index((1, width)) < size
    whole = jnp.broadcast_to(valid, (height, width))
    read = functools.partial(pltriton.load, mask=valid, other=0)
    start = first_ref[0] + pl.program_id(0).astype(jnp.uint32) * height
    words = words_ref[0], words_ref[1]
    result, total, mean, inverse = _forward_tile(
      pltriton.load(x_ref, mask=whole, other=0),
      pltriton.load(y_ref, mask=whole, other=0),
      read(bias_ref),
      read(scale_ref),
      read(shift_ref),
      _kept(options, words, start, (height, width), size),
      valid,
      size,
      options,
    )
    result_ref, total_ref, mean_ref, inverse_ref = out
    pltriton.store(result_ref, result, mask=whole)
    pltriton.store(total_ref, total, mask=whole)
    mean_ref[...] = mean
    inverse_ref[...] = inverse

  scalars = pl.BlockSpec(memory_space=pl.ANY)
  tile = pl.BlockSpec((height, width), lambda i: (i, 0))
  row = pl.BlockSpec((1, width), lambda i: (0, 0))
  statistic = pl.BlockSpec((height, 1), lambda i: (i, 0))
  per_token = jax.ShapeDtypeStruct((count, 1), jnp.float32)
  return pl.pallas_call(
    kernel,
    grid=count // height,
    in_specs=[scalars, tile, tile, row, row, row, scalars],
    out_specs=[tile, tile, statistic, statistic],
    out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype)] * 2 + [per_token] * 2,
    compiler_params=kernels.triton(),
    interpret=interpret,
    name='add_norm_forward',
  )(first, x, y, bias[None], scale[None], shift[None], words)


def _backward_by_triton(
  options,
  first,
  gradient,
  total,
  mean,
  inverse,
  scale,
  words,
  interpret=False,
):
  count, size = total.shape
  height, width = _tile(count, size)
  block = max(kernels.divisor(count, _TOKENS), height)

  def kernel(
    first_ref,
    gradient_ref,
    total_ref,
    mean_ref,
    inverse_ref,
    scale_ref,
    words_ref,
    of_x_ref,
    of_y_ref,
    sums_ref,
  ):
    valid = dropout.flat_index((1, width)) < size
    whole = jnp.broadcast_to(valid, (height, width))
    scale = pltriton.load(scale_ref, mask=valid, other=0)
    words = words_ref[0], words_ref[1]
    start = first_ref[0] + pl.program_id(0).astype(jnp.uint32) * block

    def add_tile(number, sums):
      some = pl.ds(number * height, height)
      token = start + number.astype(jnp.uint32) * height
      kept = _kept(options, words, token, (height, width), size)
      of_x, of_y, shares = _backward_tile(
        pltriton.load(gradient_ref.at[some, :], mask=whole, other=0),
        pltriton.load(total_ref.at[some, :], mask=whole, other=0),
        mean_ref[some, :],
        inverse_ref[some, :],
        scale,
        kept,
        valid,
        size,
        options,
      )
      for ref, value in ((of_x_ref, of_x), (of_y_ref, of_y)):
        pltriton.store(ref.at[some, :], value.astype(ref.dtype), mask=whole)
      return tuple(total + share for total, share in zip(sums, shares))

    zeros = (jnp.zeros((height, width), jnp.float32),) * 3
    sums = jax.lax.fori_loop(0, block // height, add_tile, zeros)
    for i, value in enumerate(sums):
      value = jnp.sum(value, axis=0, keepdims=True)
      pltriton.store(sums_ref.at[pl.ds(i, 1), :], value, mask=valid)

  scalars = pl.BlockSpec(memory_space=pl.ANY)
  tile = pl.BlockSpec((block, width), lambda i: (i, 0))
  row = pl.BlockSpec((1, width), lambda i: (0, 0))
  statistic = pl.BlockSpec((block, 1), lambda i: (i, 0))
  array = jax.ShapeDtypeStruct(total.shape, total.dtype)
  blocks = count // block
  of_x, of_y, sums = pl.pallas_call(
    kernel,
    grid=blocks,
    in_specs=[scalars, tile, tile, statistic, statistic, row, scalars],
    out_specs=[tile, tile, pl.BlockSpec((3, width), lambda i: (i, 0))],
    out_shape=[
      array,
      array,
      jax.ShapeDtypeStruct((blocks * 3, size), jnp.float32),
    ],
    compiler_params=kernels.triton(),
    interpret=interpret,
    name='add_norm_backward',
  )(first, gradient, total, mean, inverse, scale[None], words)
  return of_x, of_y, jnp.sum(sums.reshape(blocks, 3, size), axis=0)
