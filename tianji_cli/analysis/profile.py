"""How each role spent its time over the whole run. No pandas here: `tianji up` shows it, too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import msgspec

from engine.timing import IDLE, SECTIONS
from engine.trace.records import Profile

MAX_ROLES = 12
"""Above this number, the roles of each kind are shown as their mean."""


class RoleProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The time of a role from the start of training until it stopped.

    Attributes:
        role: Its address; for several roles together, such as `actor ×64`.
        wall_s: Wall time; `sections_s` adds up to it.
        busy_s: Part of that in sections where the role itself works.
        cpu_s: CPU time of its thread.
        sections_s: By section, in the order of `engine.timing.SECTIONS`.
    """

    role: str
    wall_s: float
    busy_s: float
    cpu_s: float
    sections_s: dict[str, float]

    @property
    def kind(self) -> str:
        """`actor` of `actor-3`."""
        return self.role.partition("-")[0]

    def share(self, section: str) -> float:
        """Of the wall time, 0 to 1."""
        return self.sections_s.get(section, 0.0) / self.wall_s if self.wall_s else 0.0

    @property
    def busy_share(self) -> float:
        return self.busy_s / self.wall_s if self.wall_s else 0.0

    @property
    def cpu_share(self) -> float:
        return self.cpu_s / self.wall_s if self.wall_s else 0.0


def profile_of(rows: Iterable[Profile]) -> list[RoleProfile]:
    """One profile for each role, by kind and number."""
    by_role: dict[str, list[Profile]] = {}
    for row in rows:
        by_role.setdefault(row.role, []).append(row)
    roles = [_sum(role, same) for role, same in by_role.items()]
    return sorted(roles, key=lambda role: (role.kind, len(role.role), role.role))


def summarised(roles: Sequence[RoleProfile]) -> list[RoleProfile]:
    """The same, or the mean of each kind if there are too many to read."""
    if len(roles) <= MAX_ROLES:
        return list(roles)
    by_kind: dict[str, list[RoleProfile]] = {}
    for role in roles:
        by_kind.setdefault(role.kind, []).append(role)
    return [
        _mean(f"{kind} ×{len(same)}", same) if len(same) > 1 else same[0]
        for kind, same in islice(by_kind.items(), MAX_ROLES)
    ]


def _sum(name: str, rows: Sequence[Profile]) -> RoleProfile:
    sections_s = _sections(row.sections_s for row in rows)
    wall_s = sum(row.wall_s for row in rows)
    idle_s = sum(sections_s.get(section, 0.0) for section in IDLE)
    return RoleProfile(
        role=name,
        wall_s=wall_s,
        busy_s=wall_s - idle_s,
        cpu_s=sum(row.cpu_s for row in rows),
        sections_s=sections_s,
    )


def _mean(name: str, roles: Sequence[RoleProfile]) -> RoleProfile:
    count = len(roles)
    total_s = _sections(role.sections_s for role in roles)
    return RoleProfile(
        role=name,
        wall_s=sum(role.wall_s for role in roles) / count,
        busy_s=sum(role.busy_s for role in roles) / count,
        cpu_s=sum(role.cpu_s for role in roles) / count,
        sections_s={section: seconds / count for section, seconds in total_s.items()},
    )


def _sections(parts: Iterable[dict[str, float]]) -> dict[str, float]:
    """Sums by section, known ones first and in their order."""
    totals: dict[str, float] = {}
    for part in parts:
        for section, seconds in part.items():
            totals[section] = totals.get(section, 0.0) + seconds
    order = {section: place for place, section in enumerate(SECTIONS)}
    return dict(sorted(totals.items(), key=lambda item: order.get(item[0], len(order))))
