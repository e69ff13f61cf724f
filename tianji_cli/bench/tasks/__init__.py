"""The work of a comparison: tasks and suites as data."""
