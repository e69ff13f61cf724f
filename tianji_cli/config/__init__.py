"""Finds and reads inventories and experiments."""
