"""Runs several processes, handles signals, logs metrics and profiles steps.

From the rest of bam_jax, this package imports only `errors`, `escape`, `files`
and the version number. The modules in `core/` do not import this package.
"""
