"""What holds for all tests: says how many ran on real hosts, and why others did not."""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """`lab tests: N ran, M skipped`, with the reasons; CI must not lose them unseen."""
    stats = terminalreporter.stats
    ran = sum(
        "lab" in report.keywords for kind in ("passed", "failed") for report in stats.get(kind, [])
    )
    skipped = [report for report in stats.get("skipped", []) if "lab" in report.keywords]
    reasons = Counter(str(report.longrepr[2]) for report in skipped if report.longrepr)
    terminalreporter.write_line(f"lab tests: {ran} ran, {len(skipped)} skipped")
    for reason, count in reasons.items():
        terminalreporter.write_line(f"  {count} x {reason}")
