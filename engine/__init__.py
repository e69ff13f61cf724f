"""TianJi's engine: asynchronous, event-driven deep reinforcement learning on many processes.

It runs on every node and knows neither SSH nor a terminal. `docs/architecture.md` is the map.
"""

import sys

from engine.search_path import working_directory_last

__version__ = "0.1.0"

PROTOCOL_VERSION = 9
"""Raised whenever two processes of different releases could no longer understand each other."""

REQUIREMENTS = (
    "gymnasium",
    "msgspec",
    "numpy",
    "psutil",
    "pyyaml",
    "pyzmq",
    "safetensors",
    "torch",
)
"""Distributions that this package imports: needed on every host, and recorded with results. Those
that only the command line imports are not needed on hosts."""

if sys.argv[:1] == ["-m"]:  # only for TianJi's own processes, not in other interpreters
    working_directory_last()
