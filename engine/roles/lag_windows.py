"""What decides about an adaptive bound on lag: a learner's batches, summed over windows of time."""

from __future__ import annotations

from collections.abc import Sequence

from engine.admission.adaptive import WINDOW_BATCHES, AdaptiveBound, Decision, MeasuredWindow
from engine.rollout import Rollout
from engine.spec import StalenessSpec

WINDOW_S = 2.0
"""The least duration of a window, so that it averages over what else the host does."""


class LagWindows:
    """Measures windows and moves the bound of one learner.

    A window ends with the first batch after `WINDOW_S` that is at least its `WINDOW_BATCHES`th. It
    is known how long an actor waited between two rollouts if both were trained.

    Args:
        staleness: Its floor.
    """

    def __init__(self, staleness: StalenessSpec) -> None:
        self._controller = AdaptiveBound(staleness.least_ess)
        self._last: dict[int, tuple[int, int, float]] = {}
        """Of each actor's last rollout: epoch, sequence, end in seconds."""
        self._began_s: float | None = None
        self._begin(None)

    def _begin(self, now_s: float | None) -> None:
        self._began_s = now_s
        self._batches = self._env_steps = 0
        self._waited_s = self._held_s = self._collected_s = 0.0
        self._ess: list[float] = []

    @property
    def max_lag(self) -> int:
        """Of rollouts that are admitted from now on."""
        return self._controller.bound

    def add(
        self, rollouts: Sequence[Rollout], wait_s: float, ess: float | None, now_s: float
    ) -> Decision | None:
        """Takes a batch that was trained.

        Args:
            rollouts: What it was made of.
            wait_s: How long the learner waited for it.
            ess: Its effective sample size as a share of the batch; None if it was not diagnosed.
            now_s: When the update ended; the first one begins the first window.

        Returns:
            What is decided, if anything is.
        """
        held_s, collected_s = self._times_of_actors(rollouts)
        if self._began_s is None:
            self._begin(now_s)
            return None
        self._batches += 1
        self._env_steps += sum(rollout.info.num_env_steps for rollout in rollouts)
        self._waited_s += wait_s
        self._held_s += held_s
        self._collected_s += collected_s
        if ess is not None:
            self._ess.append(ess)
        duration_s = now_s - self._began_s
        if duration_s < WINDOW_S or self._batches < WINDOW_BATCHES:
            return None
        window = MeasuredWindow(
            env_steps_per_s=self._env_steps / duration_s,
            learner_waited=self._waited_s / duration_s,
            actors_held=self._held_s / max(self._held_s + self._collected_s, 1e-9),
            ess=sum(self._ess) / len(self._ess) if self._ess else None,
        )
        self._begin(now_s)
        return self._controller.observe(window)

    def _times_of_actors(self, rollouts: Sequence[Rollout]) -> tuple[float, float]:
        """How long their actors waited before them, and collected them, in seconds."""
        held_s = collected_s = 0.0
        for rollout in rollouts:
            info = rollout.info
            epoch, sequence, end_s = self._last.get(info.actor, (-1, -1, 0.0))
            if (info.epoch, info.sequence) == (epoch, sequence + 1):
                held_s += max(info.start_s - end_s, 0.0)
                collected_s += info.end_s - info.start_s
            self._last[info.actor] = info.epoch, info.sequence, info.end_s
        return held_s, collected_s
