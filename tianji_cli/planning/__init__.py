"""Plans which process runs on which host, with which resources."""
