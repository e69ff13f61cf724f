"""A check of the proof: what it is called with, and what it answers."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from engine.devices.interface import Device

BUDGET_S = 480.0
"""Of the whole proof. A check that could not end within it is not begun, which is a failure."""


@dataclass(frozen=True)
class Setting:
    """What all checks are given.

    Attributes:
        name: Of the device, as PyTorch names it.
        device: The device.
        directory: Empty, for runs.
        is_rehearsal: On the processor instead of a GPU: nothing is faster there.
        scale: Length of measurements; 1 is that of the proof.
    """

    name: str
    device: Device
    directory: Path
    is_rehearsal: bool
    scale: float


@dataclass
class Outcome:
    """What a check has found.

    Attributes:
        name: Of the check.
        status: `ok`, `FAILED`, or `not run`.
        seconds: It took.
        figures: By name and unit.
        error: Why it failed.
    """

    name: str
    status: str = "ok"
    seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    error: str = ""

    def as_row(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """One thing to prove.

    Attributes:
        name: In words.
        run: Raises AssertionError if it is not so; returns figures by name and unit.
        limit_s: It ends within.
    """

    name: str
    run: Callable[[Setting], dict[str, float]]
    limit_s: float


def prove(checks: Sequence[Check], setting: Setting, show: Callable[[Outcome], None]) -> bool:
    """Runs all checks, within the budget.

    Returns:
        Whether all were run and are so.
    """
    began_s = time.monotonic()
    is_proven = True
    for check in checks:
        outcome = Outcome(check.name)
        left_s = BUDGET_S - (time.monotonic() - began_s)
        if left_s < check.limit_s:
            outcome.status, outcome.error = "not run", f"{left_s:.0f} s of the budget are left"
        else:
            _run(check, setting, outcome)
        is_proven &= outcome.status == "ok"
        show(outcome)
    return is_proven


def _run(check: Check, setting: Setting, outcome: Outcome) -> None:
    began_s = time.monotonic()
    try:
        outcome.figures = check.run(setting)
    except Exception as error:  # noqa: BLE001 - the other checks are to be run as well
        outcome.status = "FAILED"
        outcome.error = f"{type(error).__name__}: {error}"
        if not isinstance(error, AssertionError):
            outcome.error += "\n" + "".join(traceback.format_exception(error)[-3:])
    outcome.seconds = time.monotonic() - began_s


def seconds_of(device: Device, work: Callable[[], None], repeats: int) -> float:
    """Mean time of `work`, from the first to the end of the last on the device; after a warm-up."""
    work()
    device.main.record().wait()
    began_s = time.perf_counter()
    for _ in range(repeats):
        work()
    device.main.record().wait()
    return (time.perf_counter() - began_s) / repeats
