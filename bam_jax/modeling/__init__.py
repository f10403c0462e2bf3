"""Encoders and task heads in Flax, over packed rows of segments."""
