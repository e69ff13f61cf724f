"""The state of each role, from what a run has told."""

from __future__ import annotations

import pytest

from engine.trace.records import Event
from tests.helpers.watching import manifest_of_run
from tianji_cli.analysis.run import ManifestView
from tianji_cli.watch.roles import MAX_NAME, RoleStates, processes_of, state_of_several

HOSTS = {
    "a": ["coordinator", "learner-0", "buffer-0", "actor-0"],
    "b": ["learner-1", "buffer-1", "actor-1", "actor-3"],
}


def states_after(*events: tuple[str, str]) -> dict[str, str]:
    states = RoleStates(processes_of(manifest_of_run(HOSTS)))
    for kind, role in events:
        states.take(Event(t_s=0.0, kind=kind, host="", role=role, detail=""))
    return dict(states.states)


def test_roles_join_and_run():
    states = states_after(("joined", "actor-0"), ("started", "coordinator"))
    assert states["actor-0"] == states["coordinator"] == "running"
    assert states["learner-0"] == "starting"


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([("exited", "actor-1")], "gone"),
        ([("given-up", "actor-1")], "gone"),
        ([("exited", "actor-1"), ("restarted", "actor-1")], "starting"),
        ([("exited", "actor-1"), ("restarted", "actor-1"), ("joined", "actor-1")], "running"),
        ([("stuck", "actor-1")], "stuck"),
        ([("stuck", "actor-1"), ("recovered", "actor-1")], "running"),
        ([("host-lost", "b")], "gone"),
        ([("group-lost", "learner-1")], "gone"),
        ([("checkpoint", "actor-1"), ("unknown kind", "actor-1"), ("exited", "other")], "running"),
    ],
)
def test_what_becomes_of_a_role(events, state):
    states = states_after(("joined", "actor-1"), ("joined", "actor-0"), *events)
    assert states["actor-1"] == state
    assert states["actor-0"] == "running"


def test_a_host_and_a_group_are_lost_as_a_whole():
    for event in (("host-lost", "b"), ("group-lost", "learner-1")):
        states = states_after(event)
        assert {role for role, state in states.items() if state == "gone"} == set(HOSTS["b"])


def test_the_roles_of_a_process_are_lost_together():
    manifest = ManifestView(
        {"processes": {"worker-0": {"host": "a", "roles": ["actor-0", "learner-0"]}}}
    )
    states = RoleStates(processes_of(manifest))
    states.take(Event(t_s=0.0, kind="exited", host="a", role="worker-0", detail=""))
    assert states.states == {"actor-0": "gone", "learner-0": "gone"}


def test_at_the_end_what_was_not_lost_has_stopped():
    states = RoleStates(processes_of(manifest_of_run(HOSTS)))
    states.take(Event(t_s=0.0, kind="exited", host="a", role="actor-0", detail=""))
    ended = states.end()
    assert ended.pop("actor-0") == "gone"
    assert set(ended.values()) == {"stopped"}


def test_the_worst_state_of_a_process_is_its_state():
    states = {"a-0": "running", "b-0": "gone", "c-0": "stuck"}
    assert state_of_several(states, ("a-0", "b-0", "c-0")) == "gone"
    assert state_of_several(states, ("a-0", "c-0")) == "stuck"
    assert state_of_several(states, ("a-0",)) == "running"
    assert state_of_several({}, ("a-0",)) == "starting"


@pytest.mark.parametrize(
    "section",
    [[], "text", {"p": 5}, {"p": {"roles": "x"}}, {"p": {"roles": [1, None], "host": 7}}],
)
def test_a_damaged_section_is_read_as_far_as_it_goes(section):
    for process in processes_of(ManifestView({"processes": section})):
        assert isinstance(process.host, str)


def test_names_are_bounded_and_plain():
    hostile = "x" * 10_000 + "\x1b[31m\u202e"
    manifest = ManifestView({"processes": {hostile: {"host": "\x1b", "roles": ["\u202e"]}}})
    (process,) = processes_of(manifest)
    assert len(process.name) == MAX_NAME
    assert process.host == "\\x1b"
    assert process.roles == ("\\u202e",)
