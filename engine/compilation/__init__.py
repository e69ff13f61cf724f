"""Compiled functions: traced from the algorithm, compiled during training, cached."""
