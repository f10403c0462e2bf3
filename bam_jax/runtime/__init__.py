"""Runs several processes, handles signals, logs metrics and profiles steps.

Imports errors and files; the method in `core/` does not import it.
"""
