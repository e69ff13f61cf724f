"""The live page of a run on four real hosts: its updates, its cost, a killed host, and the end."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from tests.helpers.ssh_kit import SHORT, SLOWED, Bench
from tests.helpers.watching import served

pytestmark = pytest.mark.lab
UPDATES = 30
MOST_CORES = 0.03


def test_a_run_on_four_hosts_is_watched_at_little_cost(bench: Bench):
    lost = bench.hosts[-1]
    endless = ("-s", "stop.env_steps=null", "-s", "stop.seconds=300", "-s", "actors=4")
    up = bench.tianji("up", *SHORT, *SLOWED, *endless, run="watched")
    up.wait_for_training()
    with served(bench.results, "watched") as page, page.events("?run=watched") as events:
        views = (data for kind, data in events if kind == "run")
        first = next(view for view in views if not view["is_behind"])
        assert first["flow"]["hosts"] == bench.hosts  # type: ignore[index]

        process, begin_s = psutil.Process(page.process.pid), time.monotonic()
        used_s = sum(process.cpu_times()[:2])
        *_, last = (next(views) for _ in range(UPDATES))
        took_s = time.monotonic() - begin_s
        assert UPDATES / took_s >= 1.0
        assert (sum(process.cpu_times()[:2]) - used_s) / took_s < MOST_CORES
        assert last["liveness"] == "live"
        rates = [edge["per_s"] for edge in last["flow"]["edges"]]  # type: ignore[index]
        assert all(rate > 0 for rate in rates)
        assert last["figures"]["t_s"] > first["figures"]["t_s"] + 5  # type: ignore[index]

        bench.lab.kill(lost)
        for view in views:
            nodes = view["flow"]["nodes"]  # type: ignore[index]
            gone = {node["host"] for node in nodes if node["gone"]}
            if gone:
                break
        assert gone == {lost}
        assert "host-lost" in [event["kind"] for event in view["events"]]  # type: ignore[attr-defined]
        up.process.send_signal(signal.SIGINT)
        ended = next(view for view in views if view["liveness"] == "over")
        assert ended["status"] == "interrupted"
        assert page.end() == 0
    up.wait(90)
