"""`auto` over real SSH: hosts are asked for their cores, and every one of them collects."""

from __future__ import annotations

import json

import pytest

from tests.helpers.ssh_kit import SHORT, Bench, limits

pytestmark = [pytest.mark.lab, pytest.mark.slow]


def test_every_host_collects_and_a_resumed_run_keeps_the_numbers(bench: Bench) -> None:
    hosts = bench.hosts[:3]
    auto = ("-s", "actors=auto", "-s", "env.num_envs=auto")
    settings = (*SHORT, *auto, "-s", "stop.env_steps=12000", *limits(*hosts))
    command = bench.tianji("up", *settings, run="auto")
    assert command.wait(120) == 0, command.said
    assert "actors=auto: " in command.said
    manifest = json.loads((command.run_dir / "manifest.json").read_text())
    chosen = manifest["automatic"]
    assert set(chosen["cores"]) == set(hosts)
    assert min(chosen["actors_on"][host] for host in hosts[1:]) >= 1
    assert sum(chosen["actors_on"].values()) == command.summary["num_actors"]
    host_of = {row["role"]: row["host"] for row in command.rows("events") if row["host"]}
    collected = dict.fromkeys(chosen["actors_on"], 0)
    for row in command.rows("production"):
        collected[host_of[f"actor-{row['actor']}"]] += row["env_steps"]
    with_actors = {host for host, count in chosen["actors_on"].items() if count}
    assert {host for host, steps in collected.items() if steps} == with_actors

    more = ("-s", "stop.env_steps=16000", *limits(*hosts))
    again = bench.tianji("up", "--resume", "auto", *more, run="on")
    assert again.wait(120) == 0, again.said
    resumed = json.loads((again.run_dir / "manifest.json").read_text())
    assert resumed["automatic"] is None
    for key in ("actors", "env"):
        assert resumed["experiment"][key] == manifest["experiment"][key]
    placed = [
        {host["name"]: host["actors"] for host in found["inventory"]["hosts"]}
        for found in (manifest, resumed)
    ]
    assert placed == [chosen["actors_on"]] * 2
    bench.assert_nothing_left(hosts=hosts)
