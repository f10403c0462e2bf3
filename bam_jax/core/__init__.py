"""The training method as pure functions of arrays, from sampling to the step.

Nothing here reads or writes files. docs/architecture.md gives a reading order.
"""
