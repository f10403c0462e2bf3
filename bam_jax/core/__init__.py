"""The method: pure functions of arrays, from the task sampler to the teachers.

No file here reads or writes anything. Each imports at most its neighbours here,
the configuration and the types of tasks; docs/architecture.md gives the order
in which to read them.
"""
