"""Plans of training runs: one file for each command, and what they share."""
