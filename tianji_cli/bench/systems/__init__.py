"""The systems that a benchmark compares. Each runs in an interpreter of its own."""
