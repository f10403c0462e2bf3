"""Plans of training runs: the commands, and what they share."""
