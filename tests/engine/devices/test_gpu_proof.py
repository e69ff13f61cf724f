"""The script that proves devices on a GPU: it says so without one, and hides no failure."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from engine.devices.cpu import CpuDevice
from engine.devices.visible import PRETENDED
from tests.gpu import __main__ as script
from tests.gpu.proof import BUDGET_S, Check, Setting, prove


def setting(tmp_path: Path) -> Setting:
    return Setting("cpu:0", CpuDevice("cpu:0"), tmp_path, is_rehearsal=True, scale=0.0)


def fails(_: Setting) -> dict[str, float]:
    raise AssertionError("it is not so")


def test_without_a_gpu_it_says_so_and_ends_well(monkeypatch, capsys):
    monkeypatch.setattr(script, "find_devices", lambda: ())
    monkeypatch.setattr(sys, "argv", ["tests.gpu"])
    assert script.main() == 0
    assert capsys.readouterr().out.startswith("skipped: PyTorch finds no GPU here")


def test_a_failure_and_what_was_not_run_are_no_proof(tmp_path):
    found = []
    checks = [
        Check("fails", fails, 1),
        Check("is too long", lambda _: {}, BUDGET_S + 1),
        Check("holds", lambda _: {"figure": 1.0}, 1),
    ]
    assert not prove(checks, setting(tmp_path), found.append)
    assert [outcome.status for outcome in found] == ["FAILED", "not run", "ok"]
    assert found[0].error == "AssertionError: it is not so"
    assert prove(checks[2:], setting(tmp_path), found.append)


def test_the_figures_are_kept(tmp_path, monkeypatch, capsys):
    out = tmp_path / "figures.json"
    monkeypatch.setattr(script, "CHECKS", (Check("holds", lambda _: {"ms": 2.0}, 1),))
    monkeypatch.setattr(sys, "argv", ["tests.gpu", "--on", "cpu:0", "--out", str(out)])
    assert script.main() == 0
    assert "proved" in capsys.readouterr().out
    (check,) = json.loads(out.read_text())["checks"]
    assert (check["name"], check["status"], check["figures"]) == ("holds", "ok", {"ms": 2.0})


def test_all_checks_together_fit_the_budget_when_they_take_half_of_their_limits():
    assert sum(check.limit_s for check in script.CHECKS) / 2 < BUDGET_S


@pytest.mark.slow
def test_all_but_whole_runs_is_rehearsed_on_the_processor(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(PRETENDED, "cpu:0")
    checks = [
        check
        for check in (*script.updates.CHECKS, *script.streams.CHECKS)
        if "images" not in check.name
    ]
    monkeypatch.setattr(script, "CHECKS", tuple(checks))
    monkeypatch.setattr(sys, "argv", ["tests.gpu", "--on", "cpu:0", "--scale", "0.1"])
    assert script.main() == 0, capsys.readouterr().out
