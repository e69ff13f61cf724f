"""Trackers of runs on hosts over SSH: they read the tables that come here."""

from __future__ import annotations

import json

import pytest

from tests.helpers.ssh_kit import SHORT, SLOWED, Bench, limits
from tests.helpers.tracked import as_float32, tensorboard_points, traced_points

pytestmark = pytest.mark.lab


def test_a_run_over_ssh_is_tracked_while_it_trains_and_after_it_was_left_alone(bench: Bench):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    one, two, *_ = bench.hosts
    short = (*SHORT, *SLOWED, "-s", "stop.env_steps=4000", "-s", "actors=2")
    up = bench.tianji("up", *short, "--track", "tensorboard", *limits(one, two), run="stays")
    assert up.wait(90) == 0, up.said
    check(bench, "stays")

    alone = bench.tianji("up", *short, "--detach", *limits(one, two), run="alone")
    assert alone.wait(60) == 0, alone.said
    track = bench.tianji("track", "alone", "--to", "tensorboard", "--json")
    assert track.wait(90) == 0, track.said
    document = json.loads(bench.out(track))
    assert [row["state"] for row in document["runs"]] == ["complete"]
    check(bench, "alone")
    assert bench.tianji("down", "alone").wait(60) == 0
    bench.assert_nothing_left()


def check(bench: Bench, run: str) -> None:
    """The event file equals the trace."""
    found, traced = (read(bench.results / run) for read in (tensorboard_points, traced_points))
    assert {name: found[name] for name in traced} == as_float32(traced)
    assert len(traced["charts/updates"]) > 3
