"""Writes, reads, averages and evaluates teacher logits.

The arithmetic is in `bam_jax.core.teachers`. The code in `bam_jax.experiments`
decides which runs are the teachers of which run.
"""
