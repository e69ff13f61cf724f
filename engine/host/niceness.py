"""Process priorities, for hosts with more work than cores.

Niceness counts among the processes of one session only, where the kernel groups them by it
(`autogroup`), so all roles of a host and their compilers share their forkserver's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from engine.messages import role_of

GIVES_WAY: Mapping[str, int] = {"actor": 5, "environment": 5, "evaluator": 5}
"""Niceness by role; of all others 0. Whoever collects can work ahead until the queue is full, and
then waits beside an idle core if the learner, which has one thread, does not get a whole one."""


def niceness(roles: Sequence[str]) -> int:
    """Of a process that plays all these: that of the most urgent.

    >>> niceness(["actor-0"]), niceness(["actor-0", "learner-0"])
    (5, 0)
    """
    return min(GIVES_WAY.get(role_of(role), 0) for role in roles)


def give_way(roles: Sequence[str]) -> None:
    """Lowers this process's priority to what its roles deserve."""
    os.nice(niceness(roles))
