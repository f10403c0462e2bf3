"""Flax encoders and task heads, whose inputs are packed rows of segments."""
