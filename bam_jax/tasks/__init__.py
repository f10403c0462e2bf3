"""What a task is: declarations, demo data, metrics (Python and NumPy)."""
