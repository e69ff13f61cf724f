"""Environments of several agents, as vector environments that one team sees; see `vector`."""
