"""The learner comes first: whoever collects gives way, and the kernel can see who does."""

from __future__ import annotations

import os

import psutil
import pytest

from engine.host.cores import niceness

pytestmark = pytest.mark.processes


def nice_of(process: psutil.Process) -> int:
    return int(process.nice())


def test_collecting_gives_way_to_learning_in_one_session(training):
    own = os.getpriority(os.PRIO_PROCESS, 0)
    roles = {name: training.role(name) for name in ("actor-0", "actor-1", "learner-0", "buffer-0")}
    found = {name: nice_of(process) - own for name, process in roles.items()}
    assert found == {name: min(niceness([name]), 19 - own) for name in roles}
    assert found["actor-0"] > found["learner-0"]
    sessions = {os.getsid(process.pid) for process in roles.values()}
    assert len(sessions) == 1, "priorities count among the processes of a session only"
    assert all(os.getpgid(process.pid) == process.pid for process in roles.values())
    actor = roles["actor-0"]
    priorities = {os.getpriority(os.PRIO_PROCESS, thread.id) for thread in actor.threads()}
    assert priorities == {nice_of(actor)}, "its threads, which step environments, too"


@pytest.mark.parametrize(
    ("roles", "urgent"),
    [
        (["actor-0", "actor-1"], False),
        (["environment-3"], False),
        (["evaluator-0"], False),
        (["actor-0", "learner-0"], True),
        (["buffer-0"], True),
        (["coordinator"], True),
    ],
)
def test_a_process_is_as_urgent_as_its_most_urgent_role(roles: list[str], urgent: bool):
    assert (niceness(roles) == 0) is urgent
