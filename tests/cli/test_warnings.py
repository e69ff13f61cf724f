"""What a report says first: what a reader must know before trusting the figures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.helpers.synthetic_run import write_synthetic_run
from tianji_cli.analysis.check import warnings_of
from tianji_cli.analysis.run import RunData, load_run


@pytest.fixture
def run(tmp_path: Path) -> RunData:
    return load_run(write_synthetic_run(tmp_path / "run", num_batches=20, threshold=None))


def test_an_interruption_is_said_once(run: RunData):
    assert run.summary is not None
    summary = msgspec.structs.replace(run.summary, status="interrupted", stop_reason="interrupted")
    assert warnings_of(run, summary, []) == ["The run was interrupted."]


def test_a_loss_that_is_no_number_at_the_end_is_named(run: RunData):
    assert run.summary is not None
    *rows, last = run.consumption
    bad = msgspec.structs.replace(last, metrics={**last.metrics, "value_loss": math.nan})
    diverged = replace(run, consumption=[*rows, bad])
    assert warnings_of(diverged, run.summary, []) == [
        "No finite number at the end: value_loss. The training may have diverged."
    ]
    once = replace(run, consumption=[*rows, bad, last])
    assert warnings_of(once, run.summary, []) == [], "it came back"
