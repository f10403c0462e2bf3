"""Tasks: declarations, kinds, metrics and the demo data; losses are in JAX."""
