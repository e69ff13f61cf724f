"""Compiled functions: traced from the algorithm, compiled beside training, kept in a cache."""
