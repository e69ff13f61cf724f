"""What Slurm says of a job, in the user's words."""

from __future__ import annotations

import pytest

from tests.helpers.fake_slurm import record
from tianji_cli.slurm.job_state import job_state, job_state_of_accounting


@pytest.mark.parametrize(
    ("text", "phase", "words"),
    [
        (
            record("PENDING", reason="Resources", start="2026-11-30T12:00:00", nodes="(null)"),
            "pending",
            "is waiting (Resources); expected to start at 2026-11-30T12:00:00",
        ),
        (
            record("PENDING", reason="BeginTime", restarts=1, nodes="(null)"),
            "pending",
            "is waiting again, after it was requeued (BeginTime)",
        ),
        (record("RUNNING"), "running", "is running on tj[1-4], for 00:01:23 of 02:00:00"),
        (
            record("RUNNING", restarts=2, nodes="tj2"),
            "running",
            "is running on tj2, for 00:01:23 of 02:00:00, restarted 2 x",
        ),
        (
            record("COMPLETING"),
            "running",
            "is ending on tj[1-4], for 00:01:23 of 02:00:00",
        ),
        (record("COMPLETED"), "ended", "has ended: completed"),
        (record("FAILED", code="130:0"), "ended", "has ended: interrupted (FAILED)"),
        (record("FAILED", code="1:0"), "ended", "has ended: exit code 1 (FAILED)"),
        (record("TIMEOUT"), "ended", "has ended: its time limit was reached (TIMEOUT)"),
        (record("CANCELLED"), "ended", "has ended: it was cancelled (CANCELLED)"),
        (record("NODE_FAIL"), "ended", "has ended: a node has failed (NODE_FAIL)"),
        (record("REVOKED"), "ended", "has ended: REVOKED"),
        ("", "forgotten", "has ended; Slurm knows it no more"),
    ],
)
def test_a_job_in_words(text, phase, words):
    state = job_state(text)
    assert (state.phase, state.words()) == (phase, words)


def test_where_a_job_runs_is_known():
    state = job_state(record("RUNNING"))
    assert (state.nodes, state.batch_host, state.partition, state.account) == (
        *("tj[1-4]", "tj1", "main"),
        "",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("TIMEOUT|0:0|tj[1-2]\n", "has ended: its time limit was reached (TIMEOUT)"),
        ("NODE_FAIL|1:0|tj1\nFAILED|1:0|tj2\n", "has ended: exit code 1 (FAILED)"),
        ("", "has ended; Slurm knows it no more"),
    ],
)
def test_accounting_knows_what_the_controller_has_forgotten(text, words):
    """A job that was requeued has a line for each time that it ran."""
    assert job_state_of_accounting(text).words() == words
