"""From trained teachers to logit shards."""
