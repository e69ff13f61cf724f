"""Importance ratios of trained samples, by lag: how far the policy that learnt had moved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec import UNSET

from engine.trace.records import Event, Staleness

OFF_POLICY = "off-policy"
"""`Event.kind` of what a learner found to be off."""


@dataclass
class RatiosOfLag:
    """Over the batches that had samples of a lag.

    Attributes:
        ratios: How many samples.
        ess, clip_fraction, behaviour_kl: Means over these samples; None if the algorithm has none.
        ratio_max, log_ratio_first: The largest.
    """

    ratios: float = 0.0
    ess: float | None = None
    clip_fraction: float | None = None
    behaviour_kl: float | None = None
    ratio_max: float | None = None
    log_ratio_first: float | None = None
    _sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float), repr=False)

    def add(self, row: Staleness, lag: int) -> None:
        """Takes a batch with samples of this lag."""
        assert row.ratios_by_lag is not UNSET
        count = row.ratios_by_lag[lag]
        self.ratios += count
        for name in ("ess", "clip_fraction", "behaviour_kl"):
            values = getattr(row, f"{name}_by_lag")
            if values is not UNSET and lag in values:
                self._sums[name] += count * values[lag]
                setattr(self, name, self._sums[name] / self.ratios)
        for name in ("ratio_max", "log_ratio_first"):
            values = getattr(row, f"{name}_by_lag")
            if values is not UNSET and lag in values:
                before = getattr(self, name)
                setattr(self, name, values[lag] if before is None else max(before, values[lag]))


def ratios_by_lag(rows: Sequence[Staleness]) -> dict[int, RatiosOfLag]:
    """By the smallest lag of each bin, in order; empty if no batch has ratios."""
    found: defaultdict[int, RatiosOfLag] = defaultdict(RatiosOfLag)
    for row in rows:
        if row.ratios_by_lag is not UNSET:
            for lag in row.ratios_by_lag:
                found[lag].add(row, lag)
    return dict(sorted(found.items()))


def num_ratio_batches(rows: Sequence[Staleness]) -> int:
    """How many batches have ratios; a row of an older version, or a detailed one, is one."""
    counts = [row.ratio_batches for row in rows if row.ratios_by_lag is not UNSET]
    return sum(1 if count is UNSET else count for count in counts)


def off_policy_warnings(events: Sequence[Event]) -> list[str]:
    """What learners found to be off, the last finding of each; empty if nothing was."""
    last = {row.role: row for row in events if row.kind == OFF_POLICY}
    return [f"Off-policy training, {role}, {row.detail}." for role, row in sorted(last.items())]
