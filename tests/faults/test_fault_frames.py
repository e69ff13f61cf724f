"""One actor sends what no actor would, over its real connection; the run goes on without harm."""

from __future__ import annotations

import json
import signal
import time

import pytest
from sabotage import OFFENCES, WORD

from tests.helpers.running import EASY, ENDLESS, rows, wait_for

pytestmark = pytest.mark.processes


def sabotaged(tianji, tmp_path, kind: str, *settings: str):
    """A run whose actor-1 has done all that it does, and has sent rollouts since."""
    run = tmp_path / "results/run"
    all_settings = ("-s", "modules=[sabotage]", *ENDLESS, *EASY, *settings)
    command = tianji("up", "--name", "run", *all_settings, SABOTAGE=kind)
    wait_for(lambda: done(run) == len(OFFENCES), 60, "all is sent")
    began_s = time.monotonic()
    return command, run, began_s


def log(run, role: str) -> str:
    path = run / f"logs/localhost/{role}.log"
    return path.read_text(errors="replace") if path.is_file() else ""


def done(run) -> int:
    return log(run, "actor-1").count(WORD)


def sent_by(run, actor: int) -> int:
    return sum(row["actor"] == actor for row in rows(run, "production"))


def goes_on_and_balances(command, run) -> dict[str, object]:
    """It trains on, with what the bad peer sends in good order as well; then it is ended."""
    trained, sent = len(rows(run, "consumption")), sent_by(run, 1)
    wait_for(lambda: len(rows(run, "consumption")) > trained + 5, 30, "it trains on")
    wait_for(lambda: sent_by(run, 1) > sent + 5, 30, "its good rollouts are still welcome")
    command.process.send_signal(signal.SIGINT)
    code, _, err = command.end()
    assert code == 130, err
    summary = json.loads((run / "summary.json").read_text())
    assert summary["restarts"] == 0
    taken = summary["env_steps_consumed"] + summary["env_steps_dropped"]
    assert summary["env_steps_collected"] == taken + summary["env_steps_in_flight"]
    return summary


@pytest.mark.parametrize(
    "kind", ["flipped", *(pytest.param(k, marks=pytest.mark.slow) for k in ("cut", "random"))]
)
def test_a_bad_frame_is_refused_by_name_and_the_next_one_read(tianji, tmp_path, witness, kind):
    command, run, began_s = sabotaged(tianji, tmp_path, kind)
    refused = "refused a frame: frame from actor-1: "
    wait_for(lambda: log(run, "buffer-0").count(refused) == len(OFFENCES), 10, "each is refused")
    report_s = time.monotonic() - began_s
    summary = goes_on_and_balances(command, run)
    assert log(run, "buffer-0").count(refused) == len(OFFENCES), "and nothing else is"
    witness(
        "corrupt, cut or random frame",
        f"{kind}: {len(OFFENCES)} of {len(OFFENCES)} refused, actor-1 named, trained on",
        report_s=report_s,
        summary=summary,
    )


@pytest.mark.parametrize("kind", ["again", "replayed"])
def test_a_rollout_that_comes_again_is_dropped_and_not_trained(tianji, tmp_path, witness, kind):
    command, run, began_s = sabotaged(tianji, tmp_path, kind)

    def duplicates() -> list[dict[str, object]]:
        return [row for row in rows(run, "events") if row["kind"] == "duplicate"]

    wait_for(lambda: len(duplicates()) == len(OFFENCES), 20, "each is an event")
    report_s = time.monotonic() - began_s
    assert all("actor-1" in f"{row['role']} {row['detail']}" for row in duplicates())
    summary = goes_on_and_balances(command, run)
    witness(
        "rollout that comes twice" if kind == "again" else "old rollout replayed",
        f"{len(OFFENCES)} of {len(OFFENCES)} dropped, actor-1 named, nothing trained twice",
        report_s=report_s,
        summary=summary,
    )


def test_an_oversized_message_costs_its_connection_and_nothing_else(tianji, tmp_path, witness):
    command, run, _ = sabotaged(tianji, tmp_path, "oversized")
    summary = goes_on_and_balances(command, run)
    assert "refused a frame" not in log(run, "buffer-0"), "it never came that far"
    witness(
        "oversized message",
        f"{len(OFFENCES)} never read, the connection made again, trained on, books balance",
        summary=summary,
    )
