"""Actors and critics that learn from a replay store."""
