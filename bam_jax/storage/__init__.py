"""Locks, and object stores: what keeps a work directory for one command.

Only the command line imports it; the commands know local directories alone.
"""
