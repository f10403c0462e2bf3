"""Runs several processes, handles signals, logs metrics and profiles steps.

Outside this package, the modules import only `errors`, `escape`, `files` and
the version of bam_jax. The method in `core/` does not import this package.
"""
