"""Random rounds of starts, faults and ends on one machine, drawn from a seed. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Layout = Literal[
    "tianji", "local", "synchronous", "multi-learner", "central", "groups", "apex", "compiling"
]
Moment = Literal["launch", "trained", "checkpoint", "stopping"]
Act = Literal["nothing", "interrupt", "interrupt-twice", "terminate", "hang-up", "kill", "freeze"]

LAYOUTS: dict[Layout, tuple[str, ...]] = {
    "tianji": ("-s", "evaluation.every_s=1", "-s", "evaluation.episodes=2"),
    "local": ("--policy", "local"),
    "synchronous": ("--policy", "synchronous"),
    "multi-learner": ("--policy", "multi-learner"),
    "central": ("--policy", "central"),
    "groups": ("-s", "groups=2"),
    "apex": ("-x", "experiments/cartpole_apex.yaml"),
    "compiling": ("-s", "learner.compile=auto"),
}
"""How `up` is told; the last one compiles with a cache of its own, so that a compiler runs."""
ROLES: dict[Layout, tuple[str, ...]] = {
    "tianji": ("actor-0", "actor-1", "buffer-0", "learner-0", "evaluator-0"),
    "local": (),
    "synchronous": ("actor-0", "actor-1", "buffer-0", "learner-0"),
    "multi-learner": ("learner-0", "learner-1"),
    "central": ("actor-0", "learner-0", "learner-1", "reducer-0"),
    "groups": ("actor-1", "buffer-1", "learner-1", "reducer-0"),
    "apex": ("actor-0", "buffer-0", "learner-0"),
    "compiling": ("compiler",),
}
KEEPERS = ("coordinator", "supervisor", "forkserver")
MOMENTS: dict[Moment, int] = {"launch": 5, "trained": 3, "checkpoint": 2, "stopping": 3}
LAUNCH_S = 6.0
"""The first env steps come within so long, so a moment before covers every phase of the launch."""
COMMAND = "command"


@dataclass(frozen=True)
class PlannedRun:
    """One run and what happens to it.

    Attributes:
        layout: Which processes it has.
        is_detached: Begun by `up --detach`, ended by `down`.
        target: `command`, or a process by its address.
        act: What happens to the target.
        moment: When.
        delay_s: After that moment.
        frozen_s: How long the target stays frozen, 0 unless the act is `freeze`.
        num_env_steps: Its stop rule.
    """

    layout: Layout
    is_detached: bool
    target: str
    act: Act
    moment: Moment
    delay_s: float
    frozen_s: float
    num_env_steps: int


@dataclass(frozen=True)
class Round:
    """One or two runs at once, under way at the same time in one results directory."""

    number: int
    runs: tuple[PlannedRun, ...]


def make_rounds(seed: int, count: int) -> list[Round]:
    """Draws rounds; equal arguments give equal rounds."""
    draw = random.Random(seed)
    return [
        Round(number, tuple(_draw_run(draw) for _ in range(draw.choice((1, 1, 2)))))
        for number in range(1, count + 1)
    ]


def _draw_run(draw: random.Random) -> PlannedRun:
    layout = draw.choice(list(LAYOUTS))
    is_detached = layout != "local" and draw.random() < 0.3
    target, act = _draw_act(draw, layout, is_detached=is_detached)
    (moment,) = draw.choices(list(MOMENTS), list(MOMENTS.values()))
    return PlannedRun(
        layout=layout,
        is_detached=is_detached,
        target=target,
        act=act,
        moment=moment,
        delay_s=round(draw.uniform(0.0, LAUNCH_S if moment == "launch" else 0.3), 3),
        frozen_s=round(draw.uniform(0.5, 3.0), 2) if act == "freeze" else 0.0,
        num_env_steps=draw.choice((2_000, 6_000, 20_000)),
    )


def _draw_act(draw: random.Random, layout: Layout, *, is_detached: bool) -> tuple[str, Act]:
    if draw.random() < 0.1:
        return COMMAND, "nothing"
    if layout == "local" or draw.random() < 0.3:
        return COMMAND, draw.choice(
            ("interrupt", "interrupt-twice", "terminate", "hang-up", "kill", "freeze")
        )
    target = draw.choice((*ROLES[layout], *KEEPERS))
    return target, draw.choice(("kill", "kill", "terminate", "freeze"))
