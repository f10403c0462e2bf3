"""Checks of raw data before anything is computed with it."""
