"""Estimates of the time, memory and disk that a plan still needs."""
