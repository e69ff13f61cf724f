"""TianJi's engine: asynchronous, event-driven deep reinforcement learning on many processes.

It runs on every node and knows neither SSH nor a terminal. `docs/architecture.md` is the map.
"""

import sys

from engine.search_path import working_directory_last

__version__ = "0.1.0"

PROTOCOL_VERSION = 7
"""Raised whenever two processes of different releases could no longer understand each other."""

if sys.argv[:1] == ["-m"]:  # only for TianJi's own processes, not in other interpreters
    working_directory_last()
