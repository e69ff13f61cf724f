"""Files of runs: where they lie, how they are written, whose they are, what is kept secret."""
