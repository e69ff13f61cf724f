"""What holds for all tests: says how many ran on real hosts, and why others did not; the matrix of
policies, which takes minutes, runs only where `-m` asks for it."""

from __future__ import annotations

from collections import Counter

import pytest

LAB_TESTS = pytest.StashKey[set[str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "matrix" not in str(config.getoption("markexpr")):
        deselected = [item for item in items if item.get_closest_marker("matrix")]
        items[:] = [item for item in items if not item.get_closest_marker("matrix")]
        config.hook.pytest_deselected(items=deselected)
    config.stash[LAB_TESTS] = {item.nodeid for item in items if item.get_closest_marker("lab")}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """`lab tests: N ran, M skipped`, with the reasons; CI must not lose them unseen."""
    lab_tests = terminalreporter.config.stash.get(LAB_TESTS, set())
    stats = terminalreporter.stats
    ended = [*stats.get("passed", []), *stats.get("failed", [])]
    ran = sum(report.nodeid in lab_tests for report in ended if report.when == "call")
    skipped = [report for report in stats.get("skipped", []) if report.nodeid in lab_tests]
    reasons = Counter(str(report.longrepr[2]) for report in skipped if report.longrepr)
    terminalreporter.write_line(f"lab tests: {ran} ran, {len(skipped)} skipped")
    for reason, count in reasons.items():
        terminalreporter.write_line(f"  {count} x {reason}")
