"""How throughput and time to a threshold grow with the number of nodes: `tianji bench scaling`."""
