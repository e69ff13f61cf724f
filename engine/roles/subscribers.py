"""Who gets which weights of a learner: the newest, or exactly those that were requested."""

from __future__ import annotations

from engine.messages import WeightsArrived, WeightsRequested
from engine.roles.commands import Command, Send
from engine.rollout import Weights


class Subscribers:
    """Those who take a learner's weights.

    Args:
        num_kept: Versions that can still be requested, the newest included.
    """

    def __init__(self, num_kept: int = 1) -> None:
        self._num_kept = num_kept
        self._kept: dict[int, Weights] = {}
        """By version, the oldest first."""
        self._of_newest: set[str] = set()
        self._of_one: dict[str, int | None] = {}
        """Who requests single versions, and the one that it waits for."""

    def __len__(self) -> int:
        return len(self._of_newest) + len(self._of_one)

    @property
    def newest(self) -> Weights | None:
        """The weights published last."""
        return next(reversed(self._kept.values()), None)

    def ask(self, request: WeightsRequested) -> list[Command]:
        """Answers a request, now or once the weights are published.

        Weights that are not kept are too old for any rollout that is still to be collected: the
        request is a repeated one that came late.
        """
        if request.version is not None:
            self._of_one[request.actor] = request.version
            weights = self._kept.get(request.version)
            return [] if weights is None else [self._send_one(request.actor, weights)]
        self._of_newest.add(request.actor)
        newest = self.newest
        if newest is None or newest.version <= request.held_version:
            return []
        return [Send(request.actor, WeightsArrived(newest))]

    def publish(self, weights: Weights) -> list[Command]:
        """Sends new weights to all that wait for them."""
        self._kept[weights.version] = weights
        while len(self._kept) > self._num_kept:
            del self._kept[next(iter(self._kept))]
        waiting = sorted(a for a, version in self._of_one.items() if version == weights.version)
        return [
            *(Send(actor, WeightsArrived(weights)) for actor in sorted(self._of_newest)),
            *(self._send_one(actor, weights) for actor in waiting),
        ]

    def _send_one(self, actor: str, weights: Weights) -> Command:
        self._of_one[actor] = None
        return Send(actor, WeightsArrived(weights))
