"""The method as pure functions of arrays, from the task sampler to the step.

Nothing here reads or writes files. docs/architecture.md gives a reading order.
"""
