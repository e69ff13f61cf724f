"""Files of runs: their paths, writing, ownership and secrets."""
