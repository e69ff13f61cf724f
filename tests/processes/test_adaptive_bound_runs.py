"""`staleness.max_lag: auto` over processes: the bound moves, and the traces account for it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

from engine.trace.records import LAG_BOUND
from tests.helpers.histories import check_histories
from tests.helpers.running import ENDLESS, Command, rows

HELD_BACK = (
    *ENDLESS,
    *("-s", "staleness.max_lag=auto"),
    *("-s", "actors=4", "-s", "env.num_envs=2", "-s", "env.step_latency_ms=50"),
    *("-s", "algorithm.rollout_steps=4", "-s", "algorithm.batch_steps=8"),
    *("-s", "algorithm.minibatch_steps=8", "-s", "algorithm.num_epochs=1"),
)
"""A rollout takes 200 ms and makes a batch, so with a bound of 1 two of four actors collect at the
same time, while the learner waits for them."""


def test_a_larger_bound_is_tried_used_and_accounted_for(
    tianji: Callable[..., Command], tmp_path: Path
):
    run = tmp_path / "results" / "run"
    command = tianji("up", "--name", "run", *HELD_BACK)

    def is_old() -> bool:
        return any(row["lag_max"] == 2 for row in rows(run, "staleness"))

    command.wait_for(is_old, "a rollout admitted with a bound of 2 is trained at a lag of 2", 200.0)
    command.process.send_signal(signal.SIGINT)
    code, _, err = command.end(60)
    assert code == 130, err
    first = next(row for row in rows(run, "events") if row["kind"] == LAG_BOUND)
    assert (first["max_lag_before"], first["max_lag"], first["role"]) == (1, 2, "learner-0")
    assert "a trial: the learner waited" in str(first["detail"])
    log = "".join(file.read_text() for file in (run / "logs").rglob("learner-0*"))
    assert f"staleness.max_lag {first['detail']}" in log
    assert {row["max_lag"] for row in rows(run, "production")} >= {1, 2}
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["env_steps_dropped"], summary["restarts"]) == (0, 0)
    assert check_histories(tmp_path / "results") == 1
