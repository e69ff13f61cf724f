"""The table in docs/spaces.md: which kinds of spaces were trained, by what, under what policies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

ALGORITHMS = ("ppo", "impala", "dqn", "apex", "sac", "td3")
POLICIES = ("local", "tianji", "single-learner-fine", "multi-learner")
BEGIN = "<!-- written by `make space-table`: begin -->\n"
END = "<!-- written by `make space-table`: end -->\n"


class Case(msgspec.Struct, frozen=True):
    """Spaces of an environment, and the memory of the network that acts in it."""

    observation: str = "box"
    action: str = "discrete"
    mask: str = "none"
    core: str = ""

    def __str__(self) -> str:
        return "/".join(
            filter(None, (self.observation, self.action, self.mask.replace("none", ""), self.core))
        )


class Trained(msgspec.Struct, frozen=True):
    """A case that was trained."""

    case: Case
    algorithm: str
    policy: str


def render(cases: Sequence[Case], trained: Sequence[Trained]) -> str:
    """One line for each case; a cell lists the policies under which it was trained."""
    head = f"| observation | action | mask | core | {' | '.join(ALGORITHMS)} |\n"
    lines = [head, "|---" * (4 + len(ALGORITHMS)) + "|\n"]
    for case in cases:
        cells = [case.observation, case.action, case.mask, case.core or "none"]
        for algorithm in ALGORITHMS:
            done = {t.policy for t in trained if (t.case, t.algorithm) == (case, algorithm)}
            cells.append("all four" if done == set(POLICIES) else _listed(done))
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def _listed(policies: set[str]) -> str:
    return ", ".join(policy for policy in POLICIES if policy in policies) or "—"


def write_table(page: Path, cases: Sequence[Case], trained: Sequence[Trained]) -> None:
    """Puts the table between the marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + BEGIN + render(cases, trained) + END + after, encoding="utf-8")
