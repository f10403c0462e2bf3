"""Plans of training runs: the commands, and the modules that they share."""
