"""Turns text files into NumPy batches; needs neither JAX nor TensorFlow."""
