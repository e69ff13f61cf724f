"""Replay: storing rollouts, sampling from them, and limiting the rate. NumPy only, no clock."""
