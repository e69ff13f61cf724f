"""Traces: append-only tables of what happened, and the summary computed from them."""
