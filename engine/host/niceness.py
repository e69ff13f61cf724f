"""Process priorities, for hosts with more work than cores.

If the kernel groups processes by session (`autogroup`), niceness applies only within a session, so
all roles of a host and their compilers are in the session of their forkserver.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from engine.messages import role_of

GIVES_WAY: Mapping[str, int] = {"actor": 5, "environment": 5, "evaluator": 5}
"""Niceness by role; 0 for all others. Actors can work ahead until the queue is full, and then wait
beside an idle core if the learner, which has one thread, does not get a whole core."""


def niceness(roles: Sequence[str]) -> int:
    """Niceness of a process with all these roles: that of the most urgent.

    >>> niceness(["actor-0"]), niceness(["actor-0", "learner-0"])
    (5, 0)
    """
    return min(GIVES_WAY.get(role_of(role), 0) for role in roles)


def give_way(roles: Sequence[str]) -> None:
    """Lowers this process's priority to that of its roles."""
    os.nice(niceness(roles))
