"""Writes, reads, averages and evaluates teacher logits.

The arithmetic is in `bam_jax.core.teachers`; which run teaches which is decided
in `bam_jax.experiments`.
"""
