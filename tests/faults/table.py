"""Writes the table of faults in docs/reliability.md from what the tests have seen.

python tests/faults/table.py          writes it; `make fault-table` runs the tests first
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.faults.catalogue import SCENARIOS, Scenario  # noqa: E402
from tests.helpers.fault_rows import Row, read_rows  # noqa: E402

ROWS = HERE / "observed.jsonl"
PAGE = HERE.parents[1] / "docs/reliability.md"
BEGIN = "<!-- written by `make fault-table`: begin -->\n"
END = "<!-- written by `make fault-table`: end -->\n"
HEADING = """\
| fault | promised | observed | reported after | env steps lost | shown by |
|---|---|---|---|---|---|
"""


def render(rows: list[Row]) -> str:
    """The table: each fault, then what each test has seen of it."""
    lines = []
    for fault, scenario in SCENARIOS.items():
        seen = [row for row in rows if row.fault == fault]
        first = seen[0] if seen else None
        shown = _shown(scenario, [row.test for row in seen])
        lines.append(_line(fault, scenario.promised, first, shown))
        lines += [_line("", "", row, f"`{row.test}`") for row in seen[1:]]
    return HEADING + "".join(lines)


def _line(fault: str, promised: str, row: Row | None, shown: str) -> str:
    cells = [fault, promised, "", "", "", shown]
    if row is not None:
        cells[2] = row.observed
        cells[3] = "" if row.report_s is None else f"{row.report_s:.1f} s"
        cells[4] = "" if row.lost_env_steps is None else str(row.lost_env_steps)
    return "| " + " | ".join(cells) + " |\n"


def _shown(scenario: Scenario, reported: list[str]) -> str:
    """The test of the fault's first row, those that report none, and what none of them shows."""
    tests = [*reported[:1], *(test for test in scenario.tests if test not in reported)]
    named = ", ".join(f"`{test}`" for test in tests)
    missing = f"Not tested: {scenario.untested}" if scenario.untested else ""
    return ". ".join(part for part in (named, missing) if part)


def replaced(page: str, table: str) -> str:
    """The page with this table between the two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table + END + after


def main() -> None:
    """Writes the page."""
    PAGE.write_text(replaced(PAGE.read_text(), render(read_rows(ROWS))))


if __name__ == "__main__":
    main()
