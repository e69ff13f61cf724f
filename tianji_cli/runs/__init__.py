"""A run from its start to its results: control, monitoring, resuming, collecting."""
