"""Variants as a graph of runs, and the report on them."""
