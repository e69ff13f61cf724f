"""Runs: figures, tables and their page."""
