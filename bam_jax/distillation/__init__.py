"""Teachers' logits: predicted, written as shard sets, read and averaged.

The arithmetic is in `bam_jax.core.teachers`; which run teaches which is decided
in `bam_jax.experiments`.
"""
