"""An error that an actor raises before its first rollout is not tried again in vain."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.host.process import log_tail
from engine.messages import Alive
from engine.roles.coordinator.liveness import Liveness
from engine.trace.records import Production
from tianji_cli.runs.resume import resume_hint
from tianji_cli.storage.run_dir import RunPaths

RAISED = ["error: ValueError: the simulator fell over", "    env.py:3 in step: raise ValueError"]
OTHER = ["error: OSError: no licence"]
KILLED = ["actor-0 is process 7 on box"]


@pytest.fixture
def liveness() -> Liveness:
    liveness = Liveness(("actor-0", "actor-1", "buffer-0"), ("supervisor-0",), restarts=3)
    liveness.hear(Alive(address="supervisor-0", host="box"), 0.0)
    return liveness


def production(actor: int, epoch: int = 0) -> Production:
    return Production(
        t_s=1.0,
        actor=actor,
        epoch=epoch,
        sequence=0,
        env_steps=8,
        env_steps_total=8,
        version_min=0,
        version_max=0,
        collect_s=1.0,
        wait_s=0.0,
    )


def test_before_anybody_has_got_further_it_is_not_started_again(liveness: Liveness):
    assert liveness.raises_again("actor-0", RAISED)


def test_where_others_work_it_is_once_unless_it_raises_the_same_again(liveness: Liveness):
    liveness.note([production(1)])
    assert not liveness.raises_again("actor-0", RAISED)
    liveness.restart("actor-0", "box")
    assert not liveness.raises_again("actor-0", OTHER)
    liveness.restart("actor-0", "box")
    assert liveness.raises_again("actor-0", RAISED)


def test_who_has_worked_is_started_again(liveness: Liveness):
    liveness.note([production(0)])
    assert not liveness.raises_again("actor-0", RAISED)
    assert not liveness.raises_again("actor-0", RAISED)


def test_an_incarnation_that_has_not_worked_does_not_live_on_the_work_of_the_last(
    liveness: Liveness,
):
    liveness.note([production(0)])
    liveness.restart("actor-0", "box")
    assert not liveness.raises_again("actor-0", RAISED)
    liveness.restart("actor-0", "box")
    assert liveness.raises_again("actor-0", RAISED)


@pytest.mark.parametrize("log", [KILLED, []])
def test_who_was_killed_is_started_again(liveness: Liveness, log: list[str]):
    assert not liveness.raises_again("actor-0", log)


def test_of_a_log_that_ends_with_an_error_by_name_only_that_is_shown(tmp_path: Path):
    log = tmp_path / "actor-0.log"
    trace = ["Traceback (most recent call last):", '  File "x.py", line 3', "ValueError: x"]
    log.write_text("\n".join(["error: of before", "went on", *trace, *RAISED]) + "\n")
    assert log_tail(log) == RAISED
    log.write_text("\n".join([*RAISED, "went on"]) + "\n")
    assert log_tail(log) == [*RAISED, "went on"]
    log.write_text("")
    assert log_tail(log) == []


@pytest.mark.parametrize("place", [".", "group-1"])
def test_a_run_that_has_learnt_nothing_is_not_advised_to_go_on(tmp_path: Path, place: str):
    directory = tmp_path / "run" / "checkpoints" / place
    directory.mkdir(parents=True)
    paths = RunPaths(tmp_path / "run")
    assert resume_hint(paths) == ""
    (directory / "v0000000000.json").write_text("{}")
    assert resume_hint(paths) == ""
    (directory / "v0000000001.json").write_text("{}")
    assert "up --resume" in resume_hint(paths)
