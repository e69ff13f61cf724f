"""Real runs with trackers: training never waits, and what fails is said once."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from engine.host.process_identity import find_marked
from tests.helpers.running import EASY, ENDLESS, SHORT, Command, rows, wait_for
from tests.helpers.tracked import as_float32, tensorboard_points, traced_points, wandb_points
from tianji_cli.tracking.tracker import TOKEN

pytestmark = pytest.mark.processes
FEW_SECONDS = (*EASY, "-s", "stop.env_steps=24000", "-s", "stop.return_threshold=null")
OFFLINE = {"WANDB_MODE": "offline", "WANDB_API_KEY": "fedcba98" * 5}


def tracker_of(command: Command, tool: str) -> psutil.Process:
    """The process of a tracker, as soon as there is one."""
    found: list[psutil.Process] = []

    def is_there() -> bool:
        command.look()
        found.extend(process for process in command.alive() if tool in words_of(process))
        return bool(found)

    command.wait_for(is_there, f"there is a {tool} tracker")
    return found[0]


def words_of(process: psutil.Process) -> list[str]:
    try:
        words = process.cmdline()
    except psutil.Error:
        return []
    return words if "tianji_cli.tracking.process" in words else []


def left_of(token: str) -> dict[int, str]:
    """What still runs of a tracker."""
    return find_marked(token, TOKEN)


def state_of(run: Path, tool: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "tracking" / tool / "tracker.json").read_text())
    return found


def failures(run: Path) -> list[str]:
    return [str(row["detail"]) for row in rows(run, "events") if row["kind"] == "tracker-failed"]


@pytest.mark.parametrize("policy", ["local", pytest.param("tianji", marks=pytest.mark.slow)])
def test_the_event_file_of_a_run_equals_its_trace(
    tianji: Callable[..., Command], tmp_path: Path, policy: str
):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    words = ("--name", "run", "--policy", policy, "--track", "tensorboard", *SHORT)
    code, _, err = tianji("up", *words).end(120)
    assert code == 0, err
    run = tmp_path / "results" / "run"
    found, traced = tensorboard_points(run), traced_points(run)
    assert {name: found[name] for name in traced} == as_float32(traced)
    assert len(traced["losses/approx_kl"]) > 5
    assert state_of(run, "tensorboard")["state"] == "complete"
    assert "tensorboard --logdir results" in err
    assert failures(run) == []


def test_a_killed_tracker_is_said_once_and_the_run_ends_well(
    tianji: Callable[..., Command], tmp_path: Path
):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    command = tianji("up", "--name", "run", "--track", "tensorboard", *FEW_SECONDS)
    tracker = tracker_of(command, "tensorboard")
    tracker.send_signal(signal.SIGKILL)
    run = tmp_path / "results" / "run"
    command.wait_for(lambda: failures(run) != [], "the event says so")
    code, _, err = command.end(120)
    assert code == 0, err
    assert failures(run) == ["tensorboard was killed by SIGKILL"]
    assert err.count("tracker tensorboard was killed by SIGKILL") == 1
    assert err.count("tianji track run --to tensorboard") == 1
    assert json.loads((run / "summary.json").read_text())["status"] == "ok"
    state = state_of(run, "tensorboard")
    assert (state["state"], state["error"]) == ("failed", "was killed by SIGKILL")

    again = tianji("track", "run", "--to", "tensorboard", "--json")
    code, out, err = again.end(60)
    assert code == 0, err
    document = json.loads(out)
    assert [(row["run_id"], row["state"]) for row in document["runs"]] == [("run", "complete")]
    found, traced = tensorboard_points(run), traced_points(run)
    assert {name: found[name] for name in traced} == as_float32(traced)


@pytest.mark.slow
def test_weights_and_biases_offline_leaves_no_process(
    tianji: Callable[..., Command], tmp_path: Path
):
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    command = tianji("up", "--name", "run", "--track", "wandb", *FEW_SECONDS, **OFFLINE)
    token = tracker_of(command, "wandb").environ()[TOKEN]
    code, _, err = command.end(120)
    assert code == 0, err
    run = tmp_path / "results" / "run"
    assert wandb_points(run).items() >= traced_points(run).items()
    assert "wandb sync results/run/tracking/wandb/offline-run-" in err
    assert left_of(token) == {}


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["tracker", "command"])
def test_what_a_killed_one_leaves_of_weights_and_biases_ends(
    tianji: Callable[..., Command], tmp_path: Path, whom: str
):
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    command = tianji("up", "--name", "run", "--track", "wandb", *ENDLESS, *EASY, **OFFLINE)
    tracker = tracker_of(command, "wandb")
    run = tmp_path / "results" / "run"
    command.wait_for(lambda: any(run.glob("tracking/wandb/offline-run-*")), "it has begun")
    service = [p for p in psutil.Process(tracker.pid).children() if p.name() == "wandb-core"]
    assert service
    token = tracker.environ()[TOKEN]
    assert len(left_of(token)) >= 2
    victim = tracker if whom == "tracker" else psutil.Process(command.process.pid)
    victim.send_signal(signal.SIGKILL)
    if whom == "tracker":
        command.wait_for(lambda: failures(run) != [], "the event says so")
        command.process.send_signal(signal.SIGINT)
        assert command.end(60)[0] == 130
        assert left_of(token) == {}
    wait_for(lambda: left_of(token) == {}, 30, "nothing of it is left")


@pytest.mark.slow
def test_a_run_of_another_command_is_followed_to_its_end(
    tianji: Callable[..., Command], tmp_path: Path
):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    run = tmp_path / "results" / "run"
    command = tianji("up", "--name", "run", *FEW_SECONDS)
    command.wait_for(lambda: len(rows(run, "consumption")) > 3, "training is under way")
    follower = tianji("track", "--to", "tensorboard")
    tracker_of(follower, "tensorboard")
    assert command.end(120)[0] == 0
    code, _, err = follower.end(60)
    assert code == 0, err
    assert state_of(run, "tensorboard")["state"] == "complete"
    found, traced = tensorboard_points(run), traced_points(run)
    assert {name: found[name] for name in traced} == as_float32(traced)
