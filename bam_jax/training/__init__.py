"""Compiled programs, checkpoints and the loop that trains a model."""
