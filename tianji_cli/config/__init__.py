"""Inventories and experiments: where they lie and what they say."""
