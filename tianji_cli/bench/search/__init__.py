"""Search for the best setting: what is tried, and what has been learnt from it."""
