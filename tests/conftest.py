"""What holds for all tests: shared fixtures; says how many ran on real hosts, and why others did
not."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator

import pytest

from engine.host.cores import allowed_cores
from engine.host.malloc import reading_libraries
from tests.helpers.dealing import dealt
from tianji_cli import streams

os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="tianji-tests-")
"""What tests begin is not noted among the user's own runs; commands that they start inherit it."""
os.environ.pop("PYTHONUNBUFFERED", None)  # few have it, and it hides output that is never flushed
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

pytest_plugins = [
    "tests.helpers.drawing",
    "tests.helpers.process_fixtures",
    "tests.helpers.lab_fixtures",
    "tests.helpers.slurm_fixtures",
    "tests.helpers.ray_fixtures",
    "tests.helpers.fault_rows",
    "tests.helpers.warm.plugin",
]
WAITING_WORKERS = 3
MAX_WORKERS = 16
"""Each takes half a gigabyte, and the runs of its tests another."""


def pytest_configure() -> None:
    """Signals work in tests of them, also where the suite runs in a shell's background or under
    `nohup`, which make their children ignore SIGINT or SIGHUP, and these theirs.

    What has a handler is no longer ignored by programs that are started. That of SIGHUP does
    nothing, so the suite still outlives its terminal.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means: so many that some work while others wait for a fault or a process."""
    return min(len(allowed_cores()) + WAITING_WORKERS, MAX_WORKERS)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Thousands of tests and all that they import stay: nobody looks through them for garbage."""
    with reading_libraries():
        return (yield)


@pytest.fixture(autouse=True)
def _standard_output() -> Iterator[None]:
    """A command that was run within a test has led descriptor 1 elsewhere, for good."""
    yield
    if streams._own:
        own = streams._own.pop()
        own.flush()
        os.dup2(own.fileno(), 1)
        os.close(own.fileno())


@pytest.hookimpl(trylast=True)  # after `-m` has chosen
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    num_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    is_long = [item.get_closest_marker("processes") is not None for item in items]
    items[:] = dealt(items, is_long, num_workers)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """`lab tests: N ran, M skipped`, with the reasons; CI must not lose them unseen."""
    stats = terminalreporter.stats
    passed, failed, skipped = (
        [report for report in stats.get(name, []) if "lab" in getattr(report, "keywords", ())]
        for name in ("passed", "failed", "skipped")
    )
    ran = sum(report.when == "call" for report in (*passed, *failed))
    if not ran and not skipped:
        return
    reasons = Counter(str(report.longrepr[2]) for report in skipped if report.longrepr)
    terminalreporter.write_line(f"lab tests: {ran} ran, {len(skipped)} skipped")
    for reason, count in reasons.items():
        terminalreporter.write_line(f"  {count} x {reason}")
