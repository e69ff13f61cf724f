"""The reducer: merges the models of several learners, whenever one of them offers its own.

    learner 2 --model, version 40--> reducer --merged--> learner 2     (the others are not asked)

No learner waits: it continues training while its model is merged, and blends the answer into its
current model; a late group counts with its last model, a dead group not at all.
Source: the asynchronous reducer of TianJi (AAAI 2025); the parameter server of Gorila (2015).
"""

from __future__ import annotations

from engine.messages import (
    COORDINATOR,
    Counters,
    Exit,
    GroupLost,
    ModelMerged,
    ModelOffered,
    Report,
    Start,
    Stop,
    Stopped,
)
from engine.roles.commands import Command, ForgetModel, MergeModel, Quit, Send
from engine.roles.events import Event, ModelsMerged, TimerFired
from engine.spec import ReduceSpec
from engine.trace.records import Merge


class ReducerRole:
    """Decides for the reducer.

    Args:
        index: Its number.
        spec: The weight of staleness.
    """

    def __init__(self, index: int, spec: ReduceSpec) -> None:
        self.address = f"reducer-{index}"
        self._power = spec.staleness_weight
        self._versions: dict[int, int] = {}
        """Of the newest model of each group."""
        self._lost: set[int] = set()
        self._num_merges = 0
        self._is_stopping = False

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Handles one event.

        | event | commands |
        |---|---|
        | Start, TimerFired | none |
        | ModelOffered | MergeModel, Send(Report); none after Stop or for a lost group |
        | ModelsMerged | Send(ModelMerged) |
        | GroupLost | ForgetModel |
        | Stop | Send(Stopped) |
        | Exit | Quit |
        """
        match event:
            case Start() | TimerFired():
                return []
            case ModelOffered():
                return self._offered(event, now_s)
            case ModelsMerged(group=group, weights=weights):
                return [Send(f"learner-{group}", ModelMerged(weights))]
            case GroupLost(group=group):
                self._lost.add(group)
                self._versions.pop(group, None)
                return [ForgetModel(group)]
            case Stop():
                self._is_stopping = True
                return [Send(COORDINATOR, Stopped(address=self.address, counters=Counters()))]
            case Exit():
                return [Quit()]
        raise RuntimeError(f"{self.address} cannot handle {type(event).__name__}")

    def _offered(self, event: ModelOffered, now_s: float) -> list[Command]:
        if self._is_stopping or event.group in self._lost:
            return []
        has_answer = event.answered == self._versions.get(event.group, event.answered)
        self._versions[event.group] = event.weights.version
        self._num_merges += 1
        shares = merge_shares(self._versions, self._power)
        newest = max(self._versions.values())
        row = Merge(
            t_s=now_s,
            group=event.group,
            version=event.weights.version,
            lag=newest - event.weights.version,
            lag_max=newest - min(self._versions.values()),
            versions=dict(self._versions),
            shares=shares,
            merges_total=self._num_merges,
        )
        report = Report(address=self.address, records=[row])
        merge = MergeModel(event.group, event.weights, shares, has_answer)
        return [merge, Send(COORDINATOR, report)]


def merge_shares(versions: dict[int, int], power: float) -> dict[int, float]:
    """The weight of each group's model in the mean; the weights add up to 1.

    Args:
        versions: Of the newest model of each group.
        power: p in `(1 + d) ** -p`, where d is how many versions a model is behind the newest.

    >>> merge_shares({0: 10, 1: 9}, power=1.0)
    {0: 0.6666666666666666, 1: 0.3333333333333333}
    """
    newest = max(versions.values())
    raw = {group: (1 + newest - version) ** -power for group, version in versions.items()}
    total = sum(raw.values())
    return {group: value / total for group, value in raw.items()}
