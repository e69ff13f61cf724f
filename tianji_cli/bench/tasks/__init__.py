"""What a comparison measures: tasks and suites as data."""
