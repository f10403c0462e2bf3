"""Fits linear models to frozen encoder vectors, with the loss of a task's kind.

For the usual losses the problem is convex: multinomial or binary logistic
regression with an L2 penalty. The strength of the penalty is chosen by
cross-validation on the training rows.

Dimensions: N rows, T vectors (one per row or one per scored token), D numbers
per vector, c outputs.
"""

from collections.abc import Callable, Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from bam_jax.data import folds
from bam_jax.tasks import kind as kind_lib
from bam_jax.tasks import task as task_lib
from bam_jax.tasks import windows

# Strengths of the penalty. The objective is the mean loss plus the strength
# times half the squared norm of the kernel, for standardised vectors. The
# strengths go from strong to weak, and each fit starts from the previous
# solution, which is close to the next one. The search ends at the first
# strength that does not lower the loss in cross-validation.
_STRENGTHS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
_FOLDS = 5
_ITERATIONS = 100
# The optimization of all fits ends when a step lowers S, the sum of the
# objectives of the fits, by less than this value times max(S, 1).
_TOLERANCE = 1e-5


class Linear(NamedTuple):
  """A linear model that standardises its input vectors."""

  mean: np.ndarray  # [D], mean of the training vectors.
  deviation: np.ndarray  # [D], standard deviation of the training vectors.
  kernel: np.ndarray  # [D, c]
  bias: np.ndarray  # [c]
  strength: float  # Strength of the penalty.
  loss: float  # Mean loss in cross-validation.

  def logits(self, vectors: np.ndarray) -> np.ndarray:
    """Applies the model to vectors [n, D]; returns [n, c] float32."""
    standard = (vectors - self.mean) / self.deviation
    return (standard @ self.kernel + self.bias).astype(np.float32)


def fit(
  task: task_lib.Task,
  vectors: np.ndarray,
  rows: kind_lib.Rows,
  chosen: np.ndarray,
) -> Linear:
  """Fits a linear model to the labels of the chosen rows.

  One optimization fits F models at once: one model per cross-validation fold,
  and one model on all rows. Only the model on all rows is returned.

  Args:
    task: the task of the rows.
    vectors: [T, D] vectors of the chosen rows or of their scored tokens.
    rows: features of the task's training split.
    chosen: [N] indices of the rows to fit; N must be at least 2.
  """
  mean, deviation = vectors.mean(0), np.maximum(vectors.std(0), 1e-6)
  standard = jnp.asarray((vectors - mean) / deviation)
  evaluate, count = make_objective(task, rows, chosen)
  shape = count, vectors.shape[1] + 1, task.num_outputs
  found = np.zeros(shape, np.float32)
  best = None
  for strength in _STRENGTHS:

    def step(flat: np.ndarray, strength=strength) -> tuple[float, np.ndarray]:
      params = flat.reshape(shape).astype(np.float32)
      value, gradient, _ = evaluate(params, np.float32(strength), standard)
      return float(value), np.asarray(gradient, np.float64).ravel()

    found = scipy.optimize.minimize(
      step,
      found.ravel(),
      jac=True,
      method='L-BFGS-B',
      options={'maxiter': _ITERATIONS, 'ftol': _TOLERANCE, 'gtol': 0},
    ).x.reshape(shape)
    params = found.astype(np.float32)
    loss = float(evaluate(params, np.float32(strength), standard)[2])
    if best is not None and loss >= best.loss:
      break
    kernel, bias = params[-1, :-1], params[-1, -1]
    best = Linear(mean, deviation, kernel, bias, strength, loss)
  return best


def make_objective(
  task: task_lib.Task, rows: kind_lib.Rows, chosen: np.ndarray
) -> tuple[Callable[..., tuple[jax.Array, ...]], int]:
  """Makes the objective of `fit` for the chosen rows.

  Two objectives share a compiled program if their tasks have the same kind and
  their arrays have the same shapes, for example in two folds of one task.

  Returns:
    (function, F). The arguments of the function are the parameters [F, D + 1,
    c], the strength of the penalty, and the standardised vectors [T, D]. It
    returns the objective, its gradient, and the mean loss in cross-validation.
  """
  uids = [rows.uids[row] for row in chosen]
  own = windows.weights(uids) if task.windows else np.ones(len(uids), 'f')
  weights = _fold_weights(uids, own)
  data = jax.device_put((_packed_targets(task, rows, chosen), weights))
  return functools.partial(_evaluate, task.kind, *data), len(weights)


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(
  kind: kind_lib.Kind,
  targets: '_Targets',
  weights: jax.Array,
  params: jax.Array,
  strength: jax.Array,
  standard: jax.Array,
) -> tuple[jax.Array, ...]:
  """Computes what the function of `make_objective` returns.

  `weights` are the result of `_fold_weights`.
  """

  def losses(logits: jax.Array) -> jax.Array:
    vector = targets.vector
    packed = logits[:, None] if vector is None else logits[vector]
    return kind.loss(packed, *targets.arguments)[:, 0]

  def objective(params: jax.Array) -> tuple[jax.Array, jax.Array]:
    kernel, bias = params[:, :-1], params[:, -1:]
    logits = jnp.einsum(
      'td,fdc->ftc', standard, kernel, precision=jax.lax.Precision.HIGHEST
    )
    found = jax.vmap(losses)(logits + bias)  # [F, N]
    fitted = jnp.sum(found * weights) + strength / 2 * jnp.sum(kernel**2)
    held_out = jnp.sum(found[:-1] * (weights[:-1] == 0)) / weights.shape[1]
    return fitted, held_out

  (value, held_out), gradient = jax.value_and_grad(objective, has_aux=True)(
    params
  )
  return value, gradient, held_out


def _fold_weights(uids: Sequence[str], own: np.ndarray) -> np.ndarray:
  """Returns the weights of N rows in each fit, [folds + 1, N] float32.

  Each fit except the last holds out one fold. The rows of that fold have weight
  0. The weights of the other rows are proportional to `own`, [N], and sum to 1.
  """
  count = len({task_lib.example_uid(uid) for uid in uids})
  weights = np.tile(own, (min(_FOLDS, count) + 1, 1))
  for number in range(1, len(weights)):
    fold = folds.Fold(number, len(weights) - 1, seed=0)
    weights[number - 1, folds.split(uids, fold)[1]] = 0
  return weights / weights.sum(axis=1, keepdims=True)


class _Targets(NamedTuple):
  """Arguments for the loss of a kind, with one slot per packed row.

  Each of the N rows is a packed row of its own. L is the maximum number of
  scored tokens in a row.

  Attributes:
    vector: [N, L] index of the vector of each scored token, 0 for padding; None
      if there is one vector per row, so that row n has vector n.
    arguments: arguments of the kind's `loss` that come after the logits.
  """

  vector: np.ndarray | None
  arguments: tuple[np.ndarray, ...]


def _packed_targets(
  task: task_lib.Task, rows: kind_lib.Rows, chosen: np.ndarray
) -> _Targets:
  kind = task.kind
  mask = np.ones((len(chosen), 1, task.num_outputs), bool)
  if not kind.per_token:
    target = kind.example_targets(task, rows)[chosen][:, None]
    totals = kind.example_totals(task, rows)
    more = () if totals is None else (totals[chosen][:, None],)
    return _Targets(None, (target, mask, *more))
  target, share = kind.token_targets(task, rows, chosen)
  lengths = np.diff(rows.ragged('input_ids')[1])[chosen]
  scored = share > 0
  row = np.repeat(np.arange(len(chosen)), lengths)[scored]
  counts = np.bincount(row, minlength=len(chosen))
  inside = np.arange(counts.max()) < counts[:, None]
  vector = np.zeros(inside.shape, np.int64)
  vector[inside] = np.arange(len(row))
  target, share = target[scored][vector], share[scored][vector] * inside
  return _Targets(vector, (target, share, inside[:, None], mask))
