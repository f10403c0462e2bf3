"""Locks work directories, and keeps them in object stores."""
