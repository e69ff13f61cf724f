"""The same tasks on several systems: run, stopped, measured and compared."""
