"""The method: functions of arrays, from the task sampler to the step.

No file here reads or writes anything. Each imports at most its neighbours here,
the configuration, errors and the tasks; docs/architecture.md gives the order in
which to read them.
"""
