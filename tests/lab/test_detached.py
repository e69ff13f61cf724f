"""Runs that go on without the command that started them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.ssh_kit import SHORT, SLOWED, Bench, Command, limits, wait_until

pytestmark = pytest.mark.lab

ENDLESS = (*SHORT, *SLOWED, "-s", "stop.env_steps=null", "-s", "stop.seconds=300", "-s", "actors=2")


def test_a_detached_run_can_be_watched_and_ended(bench: Bench) -> None:
    one, two, *_ = bench.hosts
    up = bench.tianji("up", *ENDLESS, "--detach", *limits(one, two), run="detached")
    assert up.wait(60) == 0, up.said
    assert "tianji down detached" in up.said
    for host in (one, two):
        assert bench.processes(host, "engine.supervision.supervisor")

    again = bench.tianji("up", *ENDLESS, *limits(one, two), run="detached")
    assert again.wait(30) == 2, again.said
    assert "exists" in again.said

    status = bench.tianji("status", "detached", "--json")
    assert status.wait(30) == 0, status.said
    document = json.loads(bench.out(status))
    assert document["phase"] == "running"
    assert document["roles"]["actor-0"]["is_alive"]
    assert document["progress"]["env_steps_collected"] > 0
    fetch = bench.tianji("fetch", "detached", "--json")
    assert fetch.wait(30) == 0, fetch.said
    document = json.loads(bench.out(fetch))
    assert (document["phase"], document["is_complete"]) == ("running", False)
    assert document["hosts"] == {host: {"phase": "running", "error": ""} for host in (one, two)}
    assert up.rows("production")
    logs = bench.tianji("logs", "detached", f"actor-0@{two}")
    assert logs.wait(30) == 0, logs.said
    assert f"actor-0@{two} | actor-0 is process" in bench.out(logs)

    down = bench.tianji("down", "detached")
    assert down.wait(60) == 0, down.said
    bench.assert_nothing_left()
    assert up.summary["status"] == "interrupted"
    assert up.rows("consumption")
    assert bench.tianji("down", "detached").wait(30) == 0
    after = bench.tianji("status", "detached", "--json")
    assert after.wait(30) == 0
    assert json.loads(bench.out(after))["phase"] == "ended"
    logs = bench.tianji("logs", "detached", "learner", "-n", "5")
    assert logs.wait(30) == 0
    assert f"learner-0@{one} | " in bench.out(logs)


def test_a_detached_run_ends_by_itself_and_is_collected(bench: Bench) -> None:
    one, two, *_ = bench.hosts
    short = (*SHORT, *SLOWED, "-s", "stop.env_steps=4000", "-s", "actors=2")
    up = bench.tianji("up", *short, "-d", *limits(one, two), run="alone")
    assert up.wait(60) == 0, up.said
    attach = bench.tianji("attach", "alone")
    follow = bench.tianji("logs", "alone", "-f")
    assert follow.wait(60) == 0, follow.said
    assert "the run has ended" in follow.said
    assert attach.wait(60) == 0, attach.said
    assert "removes what is on its hosts" in attach.said
    assert up.summary["status"] == "ok", "its results are here"
    for host in (one, two):
        wait_until(lambda host=host: not bench.processes(host), 10, f"{host} is empty")
    _fetch_again_and_again(bench, up, one, two)
    down = bench.tianji("down", "alone", "--json")
    assert down.wait(60) == 0, down.said
    assert json.loads(bench.out(down))["is_clean"]
    assert up.summary["status"] == "ok"
    assert up.summary["env_steps_consumed"] >= 4000
    bench.assert_nothing_left()
    _assert_fetched(bench, {})


def _fetch_again_and_again(bench: Bench, up: Command, *hosts: str) -> None:
    """All of the run comes, also in place of what was lost or torn here; its hosts keep it."""
    ended = {host: {"phase": "ended", "error": ""} for host in hosts}
    _assert_fetched(bench, ended)
    first = _files_of(up.run_dir)
    assert any(name.endswith(".safetensors") for name in first)
    assert {name.split("/")[1] for name in first if name.endswith(".log")} == set(hosts)
    shutil.rmtree(up.run_dir / "checkpoints")
    up.run_dir.joinpath("summary.json").unlink()
    events = up.run_dir / "trace" / "events.jsonl"
    events.write_bytes(events.read_bytes()[:-9])
    _assert_fetched(bench, ended)
    assert _files_of(up.run_dir) == first
    for host in hosts:
        kept = bench.lab.exec(host, ["ls", f"/root/.tianji/runs/alone@{host}"])
        assert kept.returncode == 0, kept.stderr


def _assert_fetched(bench: Bench, hosts: dict[str, dict[str, str]]) -> None:
    fetch = bench.tianji("fetch", "alone", "--json")
    assert fetch.wait(30) == 0, fetch.said
    document = json.loads(bench.out(fetch))
    assert (document["phase"], document["is_complete"]) == ("ended", True)
    assert document["hosts"] == hosts


def _files_of(run_dir: Path) -> dict[str, bytes]:
    """What a run has written, without what the command itself notes of it."""
    parts = ("checkpoints", "trace", "logs")
    paths = [path for part in parts for path in (run_dir / part).rglob("*") if path.is_file()]
    paths.append(run_dir / "summary.json")
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in paths}


def test_down_cleans_up_after_a_killed_controller(bench: Bench) -> None:
    one, two, *_ = bench.hosts
    up = bench.tianji("up", *ENDLESS, *limits(one, two), run="orphaned")
    up.wait_for_training()
    up.process.kill()
    up.process.wait(5)
    for host in (one, two):
        wait_until(lambda host=host: not bench.processes(host), 30, f"{host} is empty")
    down = bench.tianji("down", "orphaned")
    assert down.wait(60) == 0, down.said
    assert up.summary["status"] == "interrupted"
    assert up.summary["stop_reason"] == "controller-lost"
    bench.assert_nothing_left()
