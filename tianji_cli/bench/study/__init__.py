"""Studies: the same experiments under several settings, each with several seeds."""
