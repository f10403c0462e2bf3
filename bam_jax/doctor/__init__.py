"""Checks raw data for faults before training: `--mode=doctor`.

Imports the readers; only the command line imports it.
"""
