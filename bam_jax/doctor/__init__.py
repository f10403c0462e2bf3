"""Checks raw data for faults before training: `--mode=doctor`.

This package imports the readers of raw data. Only the command line imports it.
"""
