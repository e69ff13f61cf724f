"""Actors whose environments are tensors, and where their rollouts lie."""
