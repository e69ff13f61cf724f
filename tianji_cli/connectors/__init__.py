"""Connectors: start a supervisor on a host and communicate with it."""
