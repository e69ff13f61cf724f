"""Studies: the same experiments under several settings, with several seeds, and what that shows."""
