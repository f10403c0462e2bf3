"""The command that uses a Hugging Face classifier in PyTorch as a teacher.

Only the module `model` needs torch, which the extra `torch` installs.
"""
