"""Replay: where experience is kept, which of it is drawn, and how fast. NumPy only, no clock."""
