"""Resuming over real SSH: the learner's host is gone with its disk, the run goes on elsewhere."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from engine.trace.checkpoint_choice import choose_checkpoint
from engine.trace.replay_file import verify_replay
from tests.helpers.fault_rows import Witness
from tests.helpers.paths import REPOSITORY
from tests.helpers.ssh_kit import SHORT, SLOWED, Bench, limits, wait_until
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.storage.run_dir import RunPaths

pytestmark = pytest.mark.lab

FORMER = REPOSITORY / "tests" / "recorded" / "finished"
"""PPO on CartPole with a hidden layer of 8, of a former release."""


def test_a_run_whose_learner_host_is_dead_goes_on_on_other_hosts(
    bench: Bench, witness: Witness
) -> None:
    one, two, three, _ = bench.hosts
    settings = (*SHORT, "-s", "stop.env_steps=100000000", "-s", "checkpoint.every_s=1")
    command = bench.tianji("up", *settings, *limits(one, two), run="before")
    command.wait_for_training()
    here = command.run_dir / "checkpoints"
    wait_until(lambda: len(list(here.glob("v*.json"))) > 1, 30, "checkpoints come here")
    host_of = {row["role"]: row["host"] for row in command.rows("events") if row["host"]}
    assert host_of["learner-0"] == one
    began_s = time.monotonic()
    bench.lab.crash(one)
    wait_until(lambda: not bench.can_reach(two, one), 10, "its host has no power")
    assert command.wait(90) != 0
    report_s = time.monotonic() - began_s
    assert "tianji up --resume before" in command.said
    saved = choose_checkpoint(here, "last")
    assert not saved.refused

    steps = saved.info.counters.env_steps_consumed
    more = ("-s", f"stop.env_steps={steps + 8000}", "-s", "actors=1")
    again = bench.tianji("up", "--resume", "before", *more, *limits(two, three), run="after")
    assert again.wait(120) == 0, again.said
    assert f"resumes before from version {saved.info.version}" in again.said
    assert f"{one} cannot be asked for newer checkpoints" in again.said
    assert again.summary["resumed_from"] == "before"
    assert again.summary["weights_version"] > saved.info.version
    assert again.summary["env_steps_consumed"] >= steps + 8000
    assert min(row["version"] for row in again.rows("consumption")) == saved.info.version
    assert not rebuild_counters(load_run(RunPaths(again.run_dir)))
    manifest = json.loads((again.run_dir / "manifest.json").read_text())
    assert set(manifest["hosts"]) <= {two, three}
    witness(
        "power of the learner's host lost",
        f"failed and named the next command; resumed from version {saved.info.version} elsewhere",
        report_s=report_s,
        summary=again.summary,
    )
    bench.assert_nothing_left(hosts=[two, three])


def test_a_replay_store_comes_here_and_goes_to_another_host(bench: Bench) -> None:
    one, two, three, _ = bench.hosts
    settings = (
        *("-x", "cartpole_dqn", *SHORT, "-s", "stop.return_threshold=null"),
        *("-s", "algorithm.min_replay_size=500", "-s", "checkpoint.replay=true"),
        *("-s", "stop.env_steps=100000000", "-s", "checkpoint.every_s=1"),
    )
    command = bench.tianji("up", *settings, *limits(one, two), run="before")
    command.wait_for_training()
    here = command.run_dir / "checkpoints/replay-0"
    wait_until(lambda: len(list(here.glob("v*.json"))) > 1, 40, "stores come here")
    bench.lab.crash(one)
    assert command.wait(90) != 0

    stored = max(verify_replay(path).limiter.inserted for path in here.glob("v*.json"))
    more = ("-s", f"stop.env_steps={stored + 4000}", "-s", "actors=1")
    again = bench.tianji("up", "--resume", "before", *more, *limits(two, three), run="after")
    assert again.wait(120) == 0, again.said
    assert "restored: replay store (" in again.said
    first = again.rows("replay")[0]
    assert first["size_env_steps"] - first["env_steps"] > 500, "it was not empty"
    assert not rebuild_counters(load_run(RunPaths(again.run_dir)))
    bench.assert_nothing_left(hosts=[two, three])


def test_files_that_are_still_on_a_host_are_brought_first(bench: Bench) -> None:
    """Of a detached run that has ended, everything is over there until `down` brings it."""
    one, two, *_ = bench.hosts
    settings = (*SHORT, *SLOWED, "-s", "stop.env_steps=3000")
    command = bench.tianji("up", "-d", *settings, *limits(one, two), run="left")
    assert command.wait(60) == 0, command.said
    wait_until(lambda: not bench.processes(one), 60, "it has ended by itself")
    more = ("-s", "stop.env_steps=6000")
    refused = bench.tianji("up", "--resume", "left", *more, run="after-left")
    assert refused.wait(30) == 2
    assert "tianji down left" in refused.said
    assert bench.tianji("down", "left").wait(60) == 0
    again = bench.tianji("up", "--resume", "left", *more, *limits(one, two), run="after-left")
    assert again.wait(90) == 0, again.said
    assert again.summary["env_steps_consumed"] >= 6000
    bench.assert_nothing_left()


def test_weights_of_another_run_are_put_on_the_hosts_of_all_learners(bench: Bench) -> None:
    """Two groups on two hosts, whose reducer is on the first: all begin with the same weights."""
    one, two, *_ = bench.hosts
    weights = ("-s", f"init_from={FORMER}@best", "-s", "network.hidden_sizes=[8]", "--trust")
    still = ("-s", "algorithm.learning_rate=1e-12", "-s", "stop.env_steps=2000")
    command = bench.tianji(
        "up", *SHORT, *still, *weights, "-s", "groups=2", *limits(one, two), run="warm"
    )
    assert command.wait(90) == 0, command.said
    assert "starts with weights of finished, version 8" in command.said
    assert [row["kind"] for row in command.rows("events")].count("warm-started") == 1
    wanted = network_of(FORMER / "checkpoints")
    for group in (0, 1):
        found = network_of(command.run_dir / f"checkpoints/group-{group}")
        for name, values in wanted.items():
            np.testing.assert_allclose(found[name], values, atol=1e-6, err_msg=name)
    bench.assert_nothing_left()


def network_of(checkpoints: Path) -> dict[str, np.ndarray]:
    """The parameters in the newest checkpoint of a directory."""
    chosen = choose_checkpoint(checkpoints, "last")
    whole = safetensors.numpy.load_file(chosen.path.with_name(chosen.info.tensors_name))
    return {name: whole[name] for name in whole if name.startswith("network.")}
