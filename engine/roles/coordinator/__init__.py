"""The coordinator: starts a run, watches it, ends it, and accounts for it."""
