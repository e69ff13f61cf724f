"""What lies beside an exported policy: its card, its description for programs, an example."""
