"""Environments that return what nobody must learn from; each run ends with one clear error."""

from __future__ import annotations

import json

import pytest

from tests.helpers.running import ENDLESS, rows

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    ("env_id", "policy", "words", "fault"),
    [
        ("Nan-v0", "tianji", "observation of environment 0 is nan in step 30", "NaN"),
        ("NanReward-v0", "tianji", "reward of environment 0 is nan in step 30", "NaN"),
        ("Nan-v0", "environments", "observation of environment 0 is nan in step 30", "NaN"),
        ("Shape-v0", "tianji", "raised this in step 30", "a wrong shape"),
    ],
)
def test_what_no_network_may_see_ends_the_run_by_name(
    tianji, tmp_path, witness, env_id, policy, words, fault
):
    run = tmp_path / "results/run"
    settings = ("-s", f"env.id=broken_env:{env_id}", "--policy", policy, "-s", "restarts=1")
    command = tianji("up", "--name", "run", *settings, *ENDLESS)
    code, _, err = command.end(60)
    assert code == 1, err
    assert words in err
    assert f"broken_env:{env_id}" in err
    assert "on localhost" in err
    assert "actor-" in err or "environment-" in err
    if fault == "NaN":
        assert "Traceback" not in err
    trained = [row["metrics"] for row in rows(run, "consumption")]
    assert not any(value is None for metrics in trained for value in metrics.values())
    command.look()
    assert not command.alive()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert words.split(" in step")[0] in summary["error"]
    witness(
        f"environment that returns {fault}",
        f"{env_id}, policy {policy}: failed with host, role, id and step, exit 1",
        summary=summary,
    )
