"""The method: pure functions of arrays, from the task sampler to the step.

Imports nothing of the package but configuration, tasks and what is in here.
"""
