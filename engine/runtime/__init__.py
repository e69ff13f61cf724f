"""The runtime performs what roles decide: it owns sockets, clocks, environments and tensors."""
