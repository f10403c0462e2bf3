"""Turns text files into batches, with NumPy but without JAX or TensorFlow."""
