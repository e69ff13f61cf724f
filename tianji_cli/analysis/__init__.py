"""Analysis of traces: rows or data frames in, data frames or values out. Only `run` reads files."""
