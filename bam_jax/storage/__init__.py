"""A work directory of one command, here or in an object store."""
