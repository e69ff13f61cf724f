"""What a fault test has seen, as a row of the table in docs/reliability.md.

A test that has proved its fault and what came of it says so through the fixture `witness`. With
`--fault-rows FILE` the rows of the tests that passed replace those that the file had of them;
`make fault-table` runs all of them so, and writes the table anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from tests.faults.catalogue import SCENARIOS

OPTION = "--fault-rows"
ROWS = pytest.StashKey[list["Row"]]()
PASSED = pytest.StashKey[bool]()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One fault as one test saw it.

    Attributes:
        fault: Key of the catalogue.
        test: Its file and name.
        observed: What came of the fault, in a few words.
        report_s: From the fault until it was reported by name; null where nothing is to report.
        lost_env_steps: Collected and never trained, as the run's own ledger counts them; null
            where no run was there to count.
    """

    fault: str
    test: str
    observed: str
    report_s: float | None = None
    lost_env_steps: int | None = None


class Witness(Protocol):
    """See `witness`."""

    def __call__(
        self,
        fault: str,
        observed: str,
        *,
        report_s: float | None = None,
        summary: Mapping[str, object] | None = None,
    ) -> None: ...


def lost_env_steps(summary: Mapping[str, object]) -> int:
    """What a run collected and did not train: dropped, or in flight when it ended."""
    collected, consumed = summary["env_steps_collected"], summary["env_steps_consumed"]
    assert isinstance(collected, int)
    assert isinstance(consumed, int)
    return collected - consumed


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, metavar="FILE", help="put the rows of fault tests into this file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    if config.getoption(OPTION) is not None and config.getoption("numprocesses", None):
        raise pytest.UsageError(f"{OPTION} needs all tests in one process: leave out -n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report


@pytest.fixture
def witness(request: pytest.FixtureRequest) -> Iterator[Witness]:
    """Called once the fault is proved and its promise kept; counts if the whole test passes."""
    test = request.node.nodeid.partition("[")[0]
    seen: list[Row] = []

    def note(
        fault: str,
        observed: str,
        *,
        report_s: float | None = None,
        summary: Mapping[str, object] | None = None,
    ) -> None:
        assert fault in SCENARIOS, f"{fault!r} is not in tests/faults/catalogue.py"
        lost = None if summary is None else lost_env_steps(summary)
        seconds = None if report_s is None else round(report_s, 2)
        seen.append(
            Row(fault=fault, test=test, observed=observed, report_s=seconds, lost_env_steps=lost)
        )

    yield note
    if request.node.stash.get(PASSED, False):
        request.config.stash[ROWS] += seen


def pytest_sessionfinish(session: pytest.Session) -> None:
    place = session.config.getoption(OPTION)
    if place is not None:
        keep_rows(Path(place), session.config.stash[ROWS])


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none if it is not there."""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return [msgspec.json.decode(line, type=Row) for line in lines]


def keep_rows(path: Path, fresh: list[Row]) -> None:
    """Replaces the rows of tests that have new ones, in the catalogue's order."""
    tests = {row.test for row in fresh}
    rows = [row for row in read_rows(path) if row.test not in tests and row.fault in SCENARIOS]
    order = list(SCENARIOS)
    rows = sorted([*rows, *fresh], key=lambda row: (order.index(row.fault), row.test, row.observed))
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
