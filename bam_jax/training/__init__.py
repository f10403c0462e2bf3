"""Trains models: compiled programs, checkpoints and the training loop."""
