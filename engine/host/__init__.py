"""This host as an operating system: processes, cores, ports, memory, limits."""
