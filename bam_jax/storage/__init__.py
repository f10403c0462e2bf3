"""Locks work directories and copies them to object stores."""
