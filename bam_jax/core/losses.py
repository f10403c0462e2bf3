"""Annealed targets and the multi-task loss.

B rows, L tokens, S segment slots a row, C outputs of the widest head, K of the
widest head of tokens, T tasks.
"""

from collections.abc import Mapping
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import optax

from bam_jax.core import token_losses


def mix_targets(
  gold: jax.Array, teacher: jax.Array, gold_weight: jax.Array | float
) -> jax.Array:
  """The target λ·gold + (1-λ)·teacher (Clark et al. 2019, section 3).

  >>> mix_targets(jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5]), 0.5).tolist()
  [0.75, 0.25]

  Args:
    gold: [..., C] one-hot classes, the 0-1 score in channel 0, or 0 and 1.
    teacher: [..., C] probabilities, or the 0-1 prediction in channel 0.
    gold_weight: λ, 0-1, scalar.

  Returns:
    [..., C] float32. At λ of exactly 0 or 1 one of the two, bit for bit.
  """
  chex.assert_equal_shape([gold, teacher])
  return gold_weight * gold + (1.0 - gold_weight) * teacher


def activate(logit: jax.Array, regression_head: str) -> jax.Array:
  """The 0-1 prediction of a regression logit, any shape.

  Args:
    logit: any shape.
    regression_head: `sigmoid` (paper) or `linear` (released code).
  """
  return jax.nn.sigmoid(logit) if regression_head == 'sigmoid' else logit


def example_losses(
  logits: jax.Array,
  target: jax.Array,
  class_mask: jax.Array,
  task_id: jax.Array,
  kinds: Sequence[str],
  regression_head: str,
) -> jax.Array:
  """The loss of each slot.

  A classification slot has the soft cross-entropy over the outputs its head
  has; a regression slot the squared error of channel 0; a multi-label slot the
  mean over its outputs of the cross-entropy of a sigmoid.

  >>> losses = example_losses(
  ...     logits=jnp.array([[[0.0, 0.0, 9.0], [0.5, 9.0, 9.0]]]),
  ...     target=jnp.array([[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]),
  ...     class_mask=jnp.array([[[True, True, False], [True, False, False]]]),
  ...     task_id=jnp.array([[0, 1]]),
  ...     kinds=('classification', 'regression'),
  ...     regression_head='linear',
  ... )
  >>> [round(x, 4) for x in losses[0].tolist()]  # ln 2, (0.5 - 1)**2
  [0.6931, 0.25]

  Args:
    logits: [B, S, C] float32.
    target: [B, S, C] float32, as `mix_targets` returns.
    class_mask: [B, S, C] bool, the outputs that the slot's head has.
    task_id: [B, S] int32.
    kinds: [T] names of the tasks' kinds.
    regression_head: `sigmoid` or `linear`.

  Returns:
    [B, S] float32.
  """
  chex.assert_rank(logits, 3)
  chex.assert_equal_shape([logits, target, class_mask])
  chex.assert_shape(task_id, logits.shape[:2])

  def is_of(kind: str) -> jax.Array:
    return jnp.asarray([kind == each for each in kinds])[task_id]

  is_regression = is_of('regression')
  log_probs = jax.nn.log_softmax(jnp.where(class_mask, logits, -jnp.inf))
  # The -inf of an absent class must not meet its target of 0.
  log_probs = jnp.where(class_mask, log_probs, 0.0)  # [B, S, C]
  cross_entropy = -jnp.sum(target * log_probs, axis=-1)  # [B, S]
  error = activate(logits[..., 0], regression_head) - target[..., 0]
  result = jnp.where(is_regression, jnp.square(error), cross_entropy)
  # A program has the losses that it always had, and others where they are used.
  if 'multilabel' in kinds:
    each = optax.sigmoid_binary_cross_entropy(logits, target)
    mean = jnp.mean(each, axis=-1, where=class_mask)
    result = jnp.where(is_of('multilabel'), mean, result)
  return result


def multitask_loss(
  logits: jax.Array,
  batch: Mapping[str, jax.Array],
  class_mask: jax.Array,
  kinds: Sequence[str],
  gold_weight: jax.Array | float,
  regression_head: str,
  token_logits: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The weighted sum of the losses of a batch, and its parts by task.

  Slots of weight 0 add exactly zero to the loss and to the gradient, whatever
  they hold, and a NaN of one task leaves the entries of the others finite.

  Args:
    logits: [B, S, C] float32.
    batch: reads task_id [B, S] int32, target and teacher [B, S, C], weight
      [B, S] float32.
    class_mask: [T, C] bool.
    kinds: [T] names of the tasks' kinds.
    gold_weight: λ, 0-1, scalar.
    regression_head: `sigmoid` or `linear`.
    token_logits: [B, L, K] float32, with which segment_ids [B, L],
      token_target and token_teacher [B, L, K] and token_share [B, L] are read;
      None where no head is of tokens.

  Returns:
    The sum over slots of weight · loss, a scalar, and by task: `loss` [T], the
    terms of that sum, and `count` [T] float32, the slots of weight above 0.
  """
  chex.assert_rank([logits, class_mask], [3, 2])
  task_id, weight = batch['task_id'], batch['weight']
  chex.assert_shape([task_id, weight], logits.shape[:2])
  live = weight > 0.0  # [B, S]

  def clean(x: jax.Array) -> jax.Array:
    # Before the loss: after it, the gradient would be 0 · NaN.
    return jnp.where(live[..., None], x, 0.0)

  losses = example_losses(
    clean(logits),
    clean(mix_targets(batch['target'], batch['teacher'], gold_weight)),
    jnp.asarray(class_mask)[task_id],
    task_id,
    kinds,
    regression_head,
  )
  if token_logits is not None:
    losses = token_losses.in_slots(
      losses,
      token_logits,
      mix_targets(batch['token_target'], batch['token_teacher'], gold_weight),
      batch,
      class_mask,
      kinds,
    )
  losses = jnp.where(live, weight * losses, 0.0)  # [B, S]
  tasks = jnp.arange(class_mask.shape[0])
  # Selected, not multiplied: 0 · NaN would reach every task.
  of_task = live[..., None] & (task_id[..., None] == tasks[None, None, :])
  by_task = jnp.where(of_task, losses[..., None], 0.0)  # [B, S, T]
  return jnp.sum(losses), {
    'loss': jnp.sum(by_task, axis=(0, 1)),
    'count': jnp.sum(of_task, axis=(0, 1), dtype=jnp.float32),
  }
