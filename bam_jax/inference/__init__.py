"""Predictions of trained models, and GLUE submissions."""
