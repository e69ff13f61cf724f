"""One file per command. Heavy imports stand inside functions, so that `--help` is instant."""
