"""Samples of other policies than the one that learns: corrections and diagnostics."""
