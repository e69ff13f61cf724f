"""Connectors: how a supervisor is started on a host and talked to."""
