"""Applies per-token functions, such as LayerNorm, by XLA or Triton kernels.

A `TokenFunction` is written once, for a tile of tokens and columns. XLA applies
it to all tokens at once. On an NVIDIA GPU a Triton kernel applies it tile after
tile. The kernel reads and writes each array once, and also sums the gradients
of biases and scales, whereas XLA needs a separate kernel for each sum.
"""

from collections.abc import Callable, Sequence
import functools
import math
from typing import NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton
import jax.numpy as jnp
from jax.sharding import Mesh

from bam_jax.modeling import dropout
from bam_jax.modeling import kernels


class Tile(NamedTuple):
  """Position of a tile [n, W] in an array of N tokens and D columns.

  Attributes:
    first: uint32, index of the tile's first token in the whole batch.
    size: D.
    valid: [1, W] bool, False for columns of padding, beyond the D columns; or
      the constant True if there is no padding.
    dropout_bits: two uint32, random bits for the dropout mask; None without
      dropout.
    in_kernel: whether the function is compiled by Triton instead of XLA.
  """

  first: jax.Array
  size: int
  valid: jax.Array | bool
  dropout_bits: tuple[jax.Array, jax.Array] | None
  in_kernel: bool

  def keep_mask(self, rate: float, shape: tuple[int, int]) -> jax.Array | None:
    """Returns the dropout mask of the tile, [n, W] bool; None at rate 0."""
    if rate == 0:
      return None
    first = self.first * jnp.uint32(self.size)
    return dropout.keep_tile(
      self.dropout_bits, rate, first, shape, (self.size, 1)
    )


class TokenFunction(NamedTuple):
  """A function of a token's D numbers, and its gradient.

  Attributes:
    name: prefix of its kernels' names.
    forward: (tile, *inputs [n, W], *parameters [1, W]) -> (outputs, ()). The
      outputs are the result [n, W], and arrays [n, W] or [n, 1] to save for
      `backward`. If there are no such arrays, the inputs are saved.
    backward: (tile, gradient [n, W], *saved arrays, *parameters [1, W]) ->
      (gradients [n, W] of the inputs, shares). There is one share per
      parameter: the parameter's gradient before it is summed over the tokens,
      [n, W] float32.
    width: W in a kernel, a power of two.
    height: maximum number of tokens in a kernel's tile, a power of two.
    block: maximum number of tokens that a block of a backward kernel computes,
      tile after tile; a power of two.
  """

  name: str
  forward: Callable[..., tuple[tuple, tuple]]
  backward: Callable[..., tuple[tuple, tuple]]
  width: int
  height: int
  block: int


def apply(
  function: TokenFunction,
  inputs: Sequence[jax.Array],
  parameters: Sequence[jax.Array],
  dropout_bits: jax.Array | None,
  mesh: Mesh | None,
  use_kernel: bool,
) -> jax.Array:
  """Applies a function to all tokens of a batch.

  Args:
    function: the function.
    inputs: arrays [B, L, D], all of the same dtype.
    parameters: arrays [D].
    dropout_bits: [2] uint32, random bits for the dropout mask; None without
      dropout.
    mesh: the rows are sharded over all its axes; None: one device.
    use_kernel: whether to use a Triton kernel instead of XLA.

  Returns:
    [B, L, D] in the dtype of the inputs.
  """
  options = function, run_triton if use_kernel else run_xla

  def on_device(first, *arrays):
    length, size = arrays[0].shape[1:]
    first *= jnp.uint32(length)
    flat = tuple(x.reshape(-1, size) for x in arrays[: len(inputs)])
    result = _apply(options, first, flat, *arrays[len(inputs) :])
    return result.reshape(arrays[0].shape)

  whole = tuple(parameters), dropout_bits
  return kernels.map_over_devices(on_device, mesh, inputs, whole)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(options, first, inputs, parameters, dropout_bits):
  return _forward(options, first, inputs, parameters, dropout_bits)[0]


def _forward(options, first, inputs, parameters, dropout_bits):
  function, way = options
  (result, *saved), _ = way(
    function, function.forward, first, inputs, parameters, dropout_bits
  )
  return result, (first, tuple(saved) or inputs, parameters, dropout_bits)


def _backward(options, residuals, gradient):
  function, way = options
  first, saved, parameters, dropout_bits = residuals
  gradients, sums = way(
    function,
    function.backward,
    first,
    (gradient, *saved),
    parameters,
    dropout_bits,
  )
  # The barrier keeps XLA from fusing the sums into the operations that use
  # them.
  sums = jax.lax.optimization_barrier(sums)
  of_parameters = (x.astype(y.dtype) for x, y in zip(sums, parameters))
  return None, tuple(gradients), tuple(of_parameters), None


_apply.defvjp(_forward, _backward)


def run_xla(
  function: TokenFunction,
  method: Callable[..., tuple[tuple, tuple]],
  first: jax.Array,
  arrays: Sequence[jax.Array],
  parameters: Sequence[jax.Array],
  dropout_bits: jax.Array | None,
) -> tuple[Sequence[jax.Array], jax.Array | None]:
  """Applies `method` to all tokens as one tile, by XLA.

  `method` is the function's `forward` or `backward`. `first`, [1] uint32, is
  the index, in the whole batch, of the device's first token. For `forward`,
  returns the outputs and None. For `backward`, returns the gradients of the
  inputs and the gradients of the P parameters, [P, D].
  """
  del function
  pair = None if dropout_bits is None else (dropout_bits[0], dropout_bits[1])
  tile = Tile(first[0], parameters[0].shape[0], True, pair, False)
  results, shares = method(tile, *arrays, *(x[None] for x in parameters))
  sums = [jnp.sum(share, axis=0) for share in shares]
  return results, jnp.stack(sums) if sums else None


def run_triton(
  function: TokenFunction,
  method: Callable[..., tuple[tuple, tuple]],
  first: jax.Array,
  arrays: Sequence[jax.Array],
  parameters: Sequence[jax.Array],
  dropout_bits: jax.Array | None,
  interpret: bool = False,
) -> tuple[Sequence[jax.Array], jax.Array | None]:
  """Computes the same as `run_xla`, with a Triton kernel."""
  (count, size), width = arrays[0].shape, function.width
  shapes, sums_shape = jax.eval_shape(
    functools.partial(run_xla, function, method),
    *(first, arrays, parameters, dropout_bits),
  )
  num_sums = len(parameters) if sums_shape else 0
  height = math.gcd(count, function.height)
  block = height
  if num_sums:
    block = max(math.gcd(count, function.block), height)
  scalars = () if dropout_bits is None else (first, dropout_bits)
  blocks = count // block

  def kernel(*refs):
    refs = iter(refs)
    array_refs, row_refs, scalar_refs, result_refs = (
      [next(refs) for _ in group]
      for group in (arrays, parameters, scalars, shapes)
    )
    valid = dropout.flat_index((1, width)) < size if size % width else True
    start, pair = jnp.uint32(0), None
    if scalars:
      start = scalar_refs[0][0] + pl.program_id(0).astype(jnp.uint32) * block
      pair = scalar_refs[1][0], scalar_refs[1][1]

    def access(ref, value=None):  # Loads, or stores `value` if it is given.
      options = {}
      if size % width and ref.shape[1] == width:
        options['mask'] = jnp.broadcast_to(valid, ref.shape)
      if value is not None:
        return pltriton.store(ref, value, **options)
      return pltriton.load(ref, other=0 if options else None, **options)

    rows = [access(ref) for ref in row_refs]

    def add_tile(number, sums):
      some = pl.ds(number * height, height)
      token = start + jnp.asarray(number).astype(jnp.uint32) * height
      results, shares = method(
        Tile(token, size, valid, pair, True),
        *(access(ref.at[some, :]) for ref in array_refs),
        *rows,
      )
      for ref, result in zip(result_refs, results, strict=True):
        access(ref.at[some, :], result)
      return tuple(total + share for total, share in zip(sums, shares))

    zeros = (jnp.zeros((height, width), jnp.float32),) * num_sums
    sums = jax.lax.fori_loop(0, block // height, add_tile, zeros)
    for sums_ref in refs:
      for i, total in enumerate(sums):
        value = jnp.sum(total, axis=0, keepdims=True)
        access(sums_ref.at[pl.ds(i, 1), :], value)

  def spec(array):
    if array.shape[1] == 1:
      return pl.BlockSpec((block, 1), lambda i, j: (i, 0))
    return pl.BlockSpec((block, width), lambda i, j: (i, j))

  in_specs = [spec(x) for x in arrays]
  in_specs += [pl.BlockSpec((1, width), lambda i, j: (0, j))] * len(parameters)
  in_specs += [pl.BlockSpec(memory_space=pl.ANY)] * len(scalars)
  out_specs, out_shape = [spec(x) for x in shapes], list(shapes)
  if num_sums:
    out_specs.append(pl.BlockSpec((num_sums, width), lambda i, j: (i, j)))
    shape = blocks * num_sums, size
    out_shape.append(jax.ShapeDtypeStruct(shape, jnp.float32))
  results = pl.pallas_call(
    kernel,
    grid=(blocks, pl.cdiv(size, width)),
    in_specs=in_specs,
    out_specs=out_specs,
    out_shape=out_shape,
    compiler_params=pltriton.CompilerParams(num_warps=4, num_stages=1),
    interpret=interpret,
    name=f'{function.name}_{"backward" if num_sums else "forward"}',
  )(*arrays, *(x[None] for x in parameters), *scalars)
  if not num_sums:
    return results, None
  sums = jnp.sum(results[-1].reshape(blocks, num_sums, size), axis=0)
  return results[:-1], sums
