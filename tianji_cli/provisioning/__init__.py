"""Makes hosts ready for a run: probes, checks, ships files."""
