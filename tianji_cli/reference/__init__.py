"""What there is to choose from, and every key that a file can have: from the code itself."""
