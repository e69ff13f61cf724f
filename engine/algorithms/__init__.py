"""Algorithms: pure mathematics on tensors, unaware of processes, sockets and clocks."""
