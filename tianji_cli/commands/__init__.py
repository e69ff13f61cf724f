"""One file per command. Heavy imports are inside functions, so that `--help` is instant."""
