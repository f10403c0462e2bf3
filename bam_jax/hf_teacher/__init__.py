"""A classifier of Hugging Face's in PyTorch that teaches: a command of its own.

Only `model` needs torch, which the extra `torch` installs.
"""
