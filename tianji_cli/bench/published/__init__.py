"""Published results, reproduced: suites, runs, records and verdicts."""
