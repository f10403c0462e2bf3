"""From text to batches (NumPy; neither JAX nor TensorFlow)."""
