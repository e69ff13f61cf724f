"""Resuming over real SSH: the learner's host is gone with its disk, the run goes on elsewhere."""

from __future__ import annotations

import json
import time

import pytest

from engine.trace.checkpoint_choice import choose_checkpoint
from tests.helpers.fault_rows import Witness
from tests.helpers.ssh_kit import SHORT, SLOWED, Bench, limits, wait_until
from tianji_cli.analysis.check import rebuild_counters
from tianji_cli.analysis.run import load_run
from tianji_cli.storage.run_dir import RunPaths

pytestmark = pytest.mark.lab


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
