"""Tasks: declarations, kinds (with losses in JAX), metrics and demo data."""
