"""The encoder without heads: mean vectors of segments, and vectors of tokens.

The baseline "Frozen encoder" applies linear models to them. It takes the mean
of the last hidden states whatever the pooling of the model is: without
fine-tuning BERT's [CLS] vector is worse (Reimers and Gurevych 2019,
"Sentence-BERT", table 1).
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from bam_jax.modeling import family
from bam_jax.modeling import heads


class Vectors(NamedTuple):
  """Vectors of a batch, float32.

  Attributes:
    slots: [B, S, D], the mean of each segment's last hidden states; 0 for an
      empty slot.
    tokens: [B, L, D], the last hidden states; None if they are not wanted.
  """

  slots: jax.Array
  tokens: jax.Array | None


class FrozenEncoder(nn.Module):
  """Computes the vectors of a batch; its parameters are {'encoder'}."""

  config: family.EncoderConfig
  compute: family.Compute
  has_tokens: bool

  @nn.compact
  def __call__(
    self, batch: Mapping[str, jax.Array], deterministic: bool = True
  ) -> Vectors:
    """Takes a batch of `heads.MultiTaskModel`; there is no dropout."""
    hidden = heads.encode(self.config, self.compute, batch, deterministic)
    hidden = hidden.astype(jnp.float32)  # [B, L, D]
    slots = heads.average_segments(
      hidden, batch['segment_ids'], batch['cls_index'].shape[1]
    )
    return Vectors(slots, hidden if self.has_tokens else None)
