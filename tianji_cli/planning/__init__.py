"""Which process runs on which host, with which of its resources."""
