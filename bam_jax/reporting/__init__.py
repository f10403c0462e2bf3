"""Reports over many runs: statistics over seeds, tables, plots and pages."""
