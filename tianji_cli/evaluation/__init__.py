"""Evaluates what a run has trained: episodes in processes of this machine, and their statistics."""
