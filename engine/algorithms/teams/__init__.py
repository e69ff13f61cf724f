"""Algorithms for several agents in one environment; each is one file."""
