"""A team over real processes: it learns under every policy, and a policy's process may die."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.helpers.engine.team_runs import BEST, CLIMBING, LAYOUTS
from tests.helpers.running import rows, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]


def experiment(tmp_path: Path) -> str:
    file = tmp_path / "climbing.yaml"
    file.write_text(CLIMBING)
    return str(file)


def summary_of(run: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "summary.json").read_text())
    return found


def check_balanced(run: Path) -> None:
    ledger = rows(run, "ledger")
    assert ledger
    for row in ledger:
        assert row["collected"] == row["consumed"] + row["dropped"] + row["in_flight"]


@pytest.mark.parametrize(
    ("policy", "num_apart", "settings"), [*LAYOUTS, ("multi-learner", 1, ("actors=2",))]
)
def test_a_team_halves_its_distance_to_the_best(tianji, tmp_path, policy, num_apart, settings):
    """As in one thread, with as many learners; traces describe a possible history."""
    options = [option for setting in settings for option in ("-s", setting)]
    command = tianji(
        "up", "-x", experiment(tmp_path), "--name", "run", "--policy", policy, *options
    )
    code, _, err = command.end(200)
    assert code == 0, err
    run = tmp_path / "results" / "run"
    check_balanced(run)
    assert summary_of(run)["env_steps_consumed"] >= 2400
    if num_apart > 1:
        assert {row["learner"] for row in rows(run, "consumption")} == set(range(num_apart))
    returns = [row["episode_return"] for row in rows(run, "episodes")]
    untrained, learnt = sum(returns[:80]) / 80, sum(returns[-160:]) / 160
    assert BEST - learnt <= (BEST - untrained) / 2


@pytest.mark.parametrize("victim", ["agent-1", "environment-0"])
def test_a_killed_process_ends_the_run_by_name_and_another_run_goes_on(tianji, tmp_path, victim):
    """Without the actor of one policy no environment can step, so the others cannot go on."""
    first, second = tmp_path / "results/run", tmp_path / "results/second"
    often = ("-s", "checkpoint.every_s=0.5", "-s", "stop.env_steps=10000000")
    settings = ("-x", experiment(tmp_path), "--policy", "environments", *often)
    command = tianji("up", "--name", "run", *settings, "-s", "evaluation.every_s=1")
    wait_for(lambda: len(list(first.glob("checkpoints/*/v*.json"))) > 3, 90, "checkpoints")
    command.role(victim).send_signal(signal.SIGKILL)
    killed_at_s = time.monotonic()
    code, _, err = command.end(60)
    assert time.monotonic() - killed_at_s < 30
    assert code == 1
    assert f"{victim} on localhost was killed by SIGKILL" in err
    assert "tianji up --resume run" in err
    check_balanced(first)
    before = int(str(summary_of(first)["weights_version"]))
    assert before > 0

    goes_on = ("--resume", "run", "--name", "second", "-s", "stop.seconds=100000")
    again = tianji("up", *goes_on, "-s", "stop.return_threshold=6.5", "-s", "stop.sustained=2")
    code, _, err = again.end(120)
    assert code == 0, err
    result = summary_of(second)
    assert (result["resumed_from"], result["num_groups"], result["reached"]) == ("run", 2, True)
    check_balanced(second)
    assert rows(first, "evaluations")
