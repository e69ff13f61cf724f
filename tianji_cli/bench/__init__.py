"""The benchmark harness: the same work on several systems, interleaved, with paired statistics."""
