"""Teacher logits as shard sets: written, read, averaged, and measured.

The arithmetic is in `bam_jax.core.teachers`; which run teaches which is decided
in `bam_jax.experiments`.
"""
