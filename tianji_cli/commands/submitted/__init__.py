"""Runs that are submitted to a batch system: to submit, follow and end them."""
