"""The dataflow graph: an algorithm's functions, cut into fragments by a distribution policy."""
