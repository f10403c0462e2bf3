"""What many runs say: statistics over seeds, tables, plots, the report."""
