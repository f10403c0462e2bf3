"""The command that lets a Hugging Face classifier in PyTorch be a teacher.

Only `model` needs torch, which the extra `torch` installs.
"""
