"""Checks of raw data before any training: `--mode=doctor`.

Imports the readers; only the command line imports it.
"""
