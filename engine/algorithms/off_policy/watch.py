"""Says when the importance ratios of a learner's batches show that training is off.

Batches scatter, so it is the mean of the last `WINDOW` of them that counts. What is found is told
once, and again when it has gone away and come back. Algorithms that replay samples need no such
warning: their samples are old on purpose.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.algorithms.off_policy.ratios import WINDOW, RatioStatistics
from engine.spec import StalenessSpec

LEAST_ESS = 0.3
"""Effective sample size, as a share of the batch, below which few samples make the gradient; a drop
of it precedes collapse (Huang et al., 2026)."""
MOST_CLIPPED = 0.5
"""Share of ratios beyond the limits of the loss, above which most samples teach nothing."""
MOST_MISMATCH = 0.1
"""Of the mean |ln rho| before the update, of samples of lag 0: bfloat16 causes about 0.01; a single
sample of a Gaussian policy can be far beyond."""
RECOVERED = 1.5
"""Factor by which a value must be better than its limit before it can be told again."""


@dataclass(frozen=True)
class _Rule:
    """A limit of the mean of a statistic.

    Attributes:
        limit: What is too much, or with `is_least` too little.
        text: What is found, with `{}` for the value.
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
        "the effective sample size is {:.0%} of the batch, so that few samples make the gradient",
        is_least=True,
    ),
    "clip_fraction": _Rule(
        MOST_CLIPPED,
        "{:.0%} of the ratios are beyond the limits of the loss, so that these samples teach"
        " nothing",
    ),
    "mismatch": _Rule(
        MOST_MISMATCH,
        "what acts and what learns disagree: |ln(pi / mu)| is {:.2g} for samples of the learner's"
        " own version",
    ),
}


class OffPolicyWatch:
    """Watches the batches of one learner.

    Args:
        staleness: The bound on the age of samples, for advice.
        can_correct: Whether the algorithm has options that correct for older samples, none of
            which is in use.
    """

    def __init__(self, staleness: StalenessSpec, *, can_correct: bool) -> None:
        self._younger = _younger_samples(staleness)
        self._can_correct = can_correct
        self._recent = {name: deque[float](maxlen=WINDOW) for name in RULES}
        self._told: set[str] = set()

    def check(self, version: int, ratios: RatioStatistics, *, is_blended: bool = False) -> str:
        """Takes the statistics of an update.

        Args:
            version: That it made.
            ratios: Of its samples.
            is_blended: Whether a merged model was blended in since weights were sent to actors: the
                policy that learns has then moved, whatever the lag.

        Returns:
            What is off, if that is to be told; else empty.
        """
        values = dict(ratios.metrics)
        if ratios.mismatch is not None and not is_blended:
            values["mismatch"] = ratios.mismatch
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
                advice = self._advice(name, depends_on_age=not ratios.is_proximal)
                told.append(f"{rule.text.format(mean)}: {advice}")
        return f"update {version}: {'; '.join(told)}" if told else ""

    def _advice(self, name: str, *, depends_on_age: bool) -> str:
        """What helps with the settings of this run."""
        if name == "clip_fraction":
            younger = self._younger if depends_on_age else []
            return _joined([*younger, "take fewer or smaller steps on each batch"])
        if name == "ess":
            correct = ["correct (docs/algorithms.md)"] if self._can_correct else []
            return _joined([*self._younger, "take smaller steps", *correct])
        return "network.precision=float32 and learner.compile=off show whether these cause it"


def _younger_samples(staleness: StalenessSpec) -> list[str]:
    """The setting that lowers the age of samples, if one does."""
    if not staleness.bound:
        return []
    if staleness.is_adaptive:  # it has been lowered to 1 by then
        return ["set staleness.max_lag=0"]
    return [f"lower staleness.{'lag' if staleness.is_fixed else 'max_lag'}"]


def _joined(choices: Sequence[str]) -> str:
    """
    >>> _joined(["a"]), _joined(["a", "b"]), _joined(["a", "b", "c"])
    ('a', 'a or b', 'a, b or c')
    """
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last
