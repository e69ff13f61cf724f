"""`up --profile` of real processes: every role of every policy accounts for its time."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest

from tests.helpers.running import EAGER, rows

pytestmark = pytest.mark.processes

SECONDS = ("-s", "stop.return_threshold=null", "-s", "stop.env_steps=null", "-s", "stop.seconds=2")


def profiled(tianji, tmp_path, *arguments: str) -> tuple[dict[str, object], dict[str, dict]]:
    """The summary, and by role its wall and processor time and sections, summed up."""
    command = tianji("--json", "up", "--profile", "--name", "run", *EAGER, *SECONDS, *arguments)
    code, out, err = command.end(90)
    assert code == 0, err
    found: dict[str, dict] = defaultdict(lambda: defaultdict(float))
    for row in rows(tmp_path / "results" / "run", "profile"):
        assert sum(row["sections_s"].values()) == pytest.approx(row["wall_s"], abs=1e-6)
        for name in ("wall_s", "cpu_s", "process_cpu_s"):
            found[row["role"]][name] += row[name]
        for section, seconds in row["sections_s"].items():
            found[row["role"]][section] += seconds
    return json.loads(out), found


@pytest.mark.parametrize(
    ("policy", "settings", "expected"),
    [
        (
            "tianji",
            ("-s", "evaluation.episodes=4", "-s", "evaluation.every_s=0.5"),
            {
                "actor-0": ("environment", "inference", "recording", "sending", "waiting"),
                "actor-1": ("environment", "inference", "recording", "sending", "waiting"),
                "buffer-0": ("receiving", "sending", "control", "waiting"),
                "learner-0": ("updating", "batching", "weights", "sending", "waiting"),
                "evaluator-0": ("environment", "inference", "recording", "waiting"),
                "coordinator": ("tracing", "receiving", "control", "waiting"),
            },
        ),
        pytest.param(
            "single-learner-fine",
            (),
            {
                "environment-0": ("environment", "sending", "receiving", "waiting"),
                "actor-0": ("inference", "recording", "sending", "waiting", "others"),
                "learner-0": ("updating", "others"),
            },
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "multi-learner",
            ("-s", "algorithm.batch_steps=800"),
            {"learner-0": ("updating", "meeting", "others"), "learner-1": ("meeting",)},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "central",
            (),
            {"reducer-0": ("merging", "sending", "waiting"), "learner-1": ("weights",)},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_role_accounts_for_its_time(tianji, tmp_path, policy, settings, expected):
    summary, found = profiled(tianji, tmp_path, "--policy", policy, *settings)
    assert set(expected) <= set(found)
    for role, spent in found.items():
        # Of a run of seconds, the tenths in which it is begun and ended are some per cent.
        assert abs(spent["wall_s"] - summary["wall_s"]) < 0.05 * summary["wall_s"] + 0.3, role
        assert 0 < spent["cpu_s"] <= 1.05 * min(spent["wall_s"], spent["process_cpu_s"]), role
    for role, sections in expected.items():
        assert set(sections) <= {name for name, seconds in found[role].items() if seconds}, role


def test_sections_agree_with_the_other_tables_and_the_table_is_shown(tianji, tmp_path):
    _, found = profiled(tianji, tmp_path)
    run = tmp_path / "results" / "run"
    for actor in (0, 1):
        collect_s = sum(
            row["collect_s"] for row in rows(run, "production") if row["actor"] == actor
        )
        spent = found[f"actor-{actor}"]
        collecting_s = spent["environment"] + spent["inference"] + spent["recording"]
        # Amid a rollout its loop looks for messages every 10 ms, and may lose its core there.
        busy_s = spent["wall_s"] - spent["waiting"] - spent["others"]
        assert 0.9 * collecting_s < collect_s < 1.1 * busy_s
    update_s = sum(row["update_s"] for row in rows(run, "consumption"))
    spent = found["learner-0"]
    updating_s = spent["updating"] + spent["batching"] + spent["weights"]
    assert updating_s == pytest.approx(update_s, rel=0.1)
    _, shown, _ = tianji("report", "run").end(60)
    for role in ("actor-0", "actor-1", "buffer-0", "learner-0", "coordinator"):
        assert role in shown
    assert (run / "plots" / "profile.svg").stat().st_size > 1000
    assert "Where the time went" in (run / "report.html").read_text()


@pytest.mark.slow
def test_a_slow_environment_is_time_without_processor(tianji, tmp_path):
    _, found = profiled(tianji, tmp_path, "-s", "env.step_latency_ms=20")
    spent = found["actor-0"]
    assert spent["environment"] > 0.8 * spent["wall_s"]
    assert spent["cpu_s"] < 0.4 * spent["wall_s"]
