"""Processes, signals, logs and profiles: what a run needs besides its numbers.

Imports errors and files; the method in `core/` does not import it.
"""
