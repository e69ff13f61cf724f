"""Benchmarks and studies: figures, tables and their pages."""
