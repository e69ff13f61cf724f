"""A run from its start to its results: controlled, watched, resumed, brought back."""
