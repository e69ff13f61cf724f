"""Says when the importance ratios of a learner's batches show that training is off.

Batches scatter, so it is the mean of the last `WINDOW` of them that counts. What is found is told
once, and again when it has gone away and come back. Algorithms that replay samples need no such
warning: their samples are old on purpose.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from engine.algorithms.off_policy.ratios import RatioStatistics

WINDOW = 20
"""Batches of one judgement."""
LEAST_ESS = 0.3
"""Effective sample size, as a share of the batch, below which few samples make the gradient; a drop
of it precedes collapse (Huang et al., 2026)."""
MOST_CLIPPED = 0.5
"""Share of ratios beyond the limits of the loss, above which most samples teach nothing."""
MOST_MISMATCH = 0.1
"""Of |ln rho| before the first optimiser step, of samples of lag 0: bfloat16 causes about 0.01."""
RECOVERED = 1.5
"""Factor by which a value must be better than its limit before it can be told again."""


@dataclass(frozen=True)
class _Rule:
    """A limit of the mean of a statistic.

    Attributes:
        limit: What is too much, or with `is_least` too little.
        text: What is told, with `{}` for the value.
    """

    limit: float
    text: str
    is_least: bool = False

    def is_broken(self, value: float) -> bool:
        """Whether this value is to be told."""
        return value < self.limit if self.is_least else value > self.limit

    def is_kept(self, value: float) -> bool:
        """Whether this value is good enough to tell the next bad one."""
        if self.is_least:
            return value > min(self.limit * RECOVERED, 1.0)
        return value < self.limit / RECOVERED


RULES: Mapping[str, _Rule] = {
    "ess": _Rule(
        LEAST_ESS,
        "the effective sample size is {:.0%} of the batch, so that few samples make the gradient:"
        " lower staleness.max_lag, take smaller steps, or correct (docs/algorithms.md)",
        is_least=True,
    ),
    "clip_fraction": _Rule(
        MOST_CLIPPED,
        "{:.0%} of the ratios are beyond the limits of the loss, so that these samples teach"
        " nothing: lower staleness.max_lag, or take fewer or smaller steps on each batch",
    ),
    "mismatch": _Rule(
        MOST_MISMATCH,
        "what acts and what learns disagree: ln(pi / mu) is {:.2g} for samples of the learner's own"
        " version; network.precision=float32 and learner.compile=off show whether these cause it",
    ),
}


class OffPolicyWatch:
    """Watches the batches of one learner."""

    def __init__(self) -> None:
        self._recent = {name: deque[float](maxlen=WINDOW) for name in RULES}
        self._told: set[str] = set()

    def check(self, version: int, ratios: RatioStatistics) -> str:
        """Takes the statistics of an update.

        Args:
            version: That it made.
            ratios: Of its samples.

        Returns:
            What is off, if that is to be told; else empty.
        """
        own = ratios.by_lag.get("log_ratio_first_by_lag", {})
        values = ratios.metrics | ({"mismatch": own[0]} if 0 in own else {})
        told = []
        for name, rule in RULES.items():
            if name not in values or (name == "clip_fraction" and ratios.truncates):
                continue
            recent = self._recent[name]
            recent.append(values[name])
            mean = sum(recent) / len(recent)
            if name in self._told and rule.is_kept(mean):
                self._told.remove(name)
            if len(recent) == WINDOW and rule.is_broken(mean) and name not in self._told:
                self._told.add(name)
                told.append(rule.text.format(mean))
        return f"update {version}: {'; '.join(told)}" if told else ""
