"""TianJi's engine: asynchronous, event-driven deep reinforcement learning on many processes.

It runs on every node and knows neither SSH nor a terminal. `docs/architecture.md` is the map.
"""

__version__ = "0.1.0"

PROTOCOL_VERSION = 7
"""Raised whenever two processes of different releases could no longer understand each other."""
