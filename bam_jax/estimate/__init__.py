"""Estimates of the time, memory and disk that a plan still needs.

Imports everything that trains; only the command line imports it.
"""
