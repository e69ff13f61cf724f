"""The distribution policies that come with TianJi."""

from __future__ import annotations

from engine.graph.policy import built_in_policies, read_policy
from tianji_cli.reference.rows import ListedRow


class PolicyRow(ListedRow, frozen=True, kw_only=True):
    """A distribution policy.

    Attributes:
        name: For `--policy`.
        about: Its summary.
        stands_for: Systems with this layout.
        requires: Traits that an algorithm must have.
    """

    name: str
    about: str
    stands_for: str
    requires: tuple[str, ...]

    headings = ("policy", "about")

    @property
    def cells(self) -> tuple[str, ...]:
        others = f", as in {self.stands_for}" if self.stands_for else ""
        needs = f"; the algorithm needs {', '.join(self.requires)}" if self.requires else ""
        return self.name, self.about + others + needs


def policies() -> list[PolicyRow]:
    """All of them, by name."""
    return [_row(name) for name in built_in_policies()]


def _row(name: str) -> PolicyRow:
    policy = read_policy(name)
    return PolicyRow(
        name=name,
        about=policy.summary,
        stands_for=policy.stands_for,
        requires=policy.requires,
    )
