"""The same tasks on several systems: run, ended, measured and compared."""
