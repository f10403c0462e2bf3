"""Variants as a graph of runs, carried out."""
