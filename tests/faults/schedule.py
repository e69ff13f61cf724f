"""A random order of faults: from a seed, written down, and read back. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

Kind = Literal[
    "kill-actor",
    "stop-actor",
    "cut-host",
    "freeze-host",
    "fill-host",
    "kill-learner",
    "kill-buffer",
    "kill-coordinator",
    "kill-supervisor",
    "kill-forkserver",
    "kill-controller",
    "crash-host",
    "cut-head",
]

MILD: dict[Kind, int] = {
    "kill-actor": 5,
    "stop-actor": 2,
    "cut-host": 3,
    "freeze-host": 2,
    "fill-host": 1,
}
"""On actors and links: none of them may end the run. With how often each is drawn."""
SEVERE: dict[Kind, int] = {
    "kill-learner": 1,
    "kill-buffer": 1,
    "kill-coordinator": 1,
    "kill-supervisor": 1,
    "kill-forkserver": 1,
    "kill-controller": 1,
    "crash-host": 1,
    "cut-head": 1,
}
"""Each may end the run, by name."""
LASTING: frozenset[Kind] = frozenset({"stop-actor", "cut-host", "freeze-host", "fill-host"})
LONGEST_S = 4.0
"""Of a cut or a freeze; a host that is silent for longer may be given up."""
REST_S = 6.0
"""A host is left alone for so long after one of them, or two would add up."""


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One fault.

    Attributes:
        number: From 1.
        at_s: When, from the beginning.
        kind: What.
        target: The host it happens on, or whose actor it happens to; empty where the kind says it.
        for_s: After which time it is undone; 0 for what cannot be undone.
    """

    number: int
    at_s: float
    kind: Kind
    target: str = ""
    for_s: float = 0.0


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """All faults of a run, and what made them."""

    seed: int
    seconds: float
    hosts: tuple[str, ...]
    faults: tuple[Planned, ...]


def make_schedule(
    seed: int, seconds: float, num_faults: int, hosts: Sequence[str], *, is_severe: bool = False
) -> Schedule:
    """Draws faults at random moments; equal arguments give equal schedules.

    Args:
        seed: Of the random numbers.
        seconds: The last fault comes before that.
        num_faults: How many.
        hosts: Those with actors and nothing else.
        is_severe: Whether a fault in eight may end the run.
    """
    draw = random.Random(seed)
    moments = sorted(draw.uniform(0, seconds - LONGEST_S) for _ in range(num_faults))
    rested_s = dict.fromkeys(hosts, 0.0)
    faults = []
    for number, at_s in enumerate(moments, start=1):
        kinds = SEVERE if is_severe and draw.random() < 1 / 8 else MILD
        (kind,) = draw.choices(list(kinds), list(kinds.values()))
        for_s = draw.uniform(1.0, LONGEST_S) if kind in LASTING else 0.0
        host = draw.choice(list(hosts))
        if kind in ("cut-host", "freeze-host"):
            host = min(hosts, key=lambda name: (rested_s[name], name))
            if rested_s[host] > at_s:
                kind, for_s = "kill-actor", 0.0
            else:
                rested_s[host] = at_s + for_s + REST_S
        is_on_host = kind in MILD or kind in ("crash-host", "kill-supervisor", "kill-forkserver")
        faults.append(
            Planned(
                number=number,
                at_s=round(at_s, 2),
                kind=kind,
                target=host if is_on_host else "",
                for_s=round(for_s, 2),
            )
        )
    return Schedule(seed=seed, seconds=seconds, hosts=tuple(hosts), faults=tuple(faults))


def write_schedule(path: Path, schedule: Schedule) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(schedule)) + b"\n")


def read_schedule(path: Path) -> Schedule:
    return msgspec.json.decode(path.read_bytes(), type=Schedule)
