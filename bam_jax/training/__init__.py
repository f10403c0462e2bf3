"""Losses, optimiser, sharded steps and the loop that trains one model."""
