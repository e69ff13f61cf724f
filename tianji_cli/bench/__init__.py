"""The benchmark harness: same work on several systems, interleaved, with honest statistics."""
