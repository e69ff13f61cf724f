"""Hosts made ready for a run: probed, checked, shipped to."""
