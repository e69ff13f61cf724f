"""TianJi's engine: asynchronous, event-driven deep reinforcement learning on many processes.

It runs on every node and knows neither SSH nor a terminal. `docs/architecture.md` is the map.
"""

import sys
from typing import TYPE_CHECKING

from engine.search_path import working_directory_last

__version__ = "0.1.0"

PROTOCOL_VERSION = 14
"""Raised whenever two processes of different releases could no longer understand each other."""

REQUIREMENTS = (
    "cryptography",
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

if TYPE_CHECKING:
    from engine.trained.policy import Policy, load_policy

__all__ = ["PROTOCOL_VERSION", "REQUIREMENTS", "Policy", "__version__", "load_policy"]


def __getattr__(name: str) -> object:
    """`load_policy` and `Policy` come with torch, which most users of this package do not need."""
    if name not in ("Policy", "load_policy"):
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    from engine.trained import policy

    return getattr(policy, name)


if sys.argv[:1] == ["-m"]:  # only for TianJi's own processes, not in other interpreters
    working_directory_last()
