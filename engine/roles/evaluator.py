"""The evaluator: plays separate episodes with the newest weights during training.

    WAITING --weights that are due--> EVALUATING --all episodes ended--> WAITING
       `------------------------- Stop -----------------------`---> STOPPED

No role waits for it: when it is free it takes the newest weights and skips versions in between.
"""

from __future__ import annotations

from enum import Enum, auto

from msgspec import UNSET

from engine.messages import (
    COORDINATOR,
    Counters,
    Exit,
    Report,
    Start,
    Stop,
    Stopped,
    WeightsArrived,
    WeightsRequested,
)
from engine.roles.actor import RETRY_S
from engine.roles.commands import (
    AbandonEvaluation,
    Command,
    Evaluate,
    LoadWeights,
    Quit,
    Send,
    Wake,
)
from engine.roles.events import Evaluated, Event, TimerFired
from engine.rollout import Weights
from engine.spec import EvaluationSpec
from engine.trace.records import Evaluation


class _State(Enum):
    JOINED = auto()
    WAITING = auto()
    EVALUATING = auto()
    STOPPED = auto()


class EvaluatorRole:
    """Decides for one evaluator.

    Args:
        index: Its number.
        spec: When to evaluate.
        learner: Address that it gets weights from.
    """

    def __init__(self, index: int, spec: EvaluationSpec, learner: str) -> None:
        self.address = f"evaluator-{index}"
        self._index = index
        self._spec = spec
        self._learner = learner
        self._state = _State.JOINED
        self._newest: Weights | None = None
        self._evaluated_version: int | None = None
        self._began_s = 0.0

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Handles one event.

        | event | commands |
        |---|---|
        | Start | Send(WeightsRequested), Wake |
        | WeightsArrived | if an evaluation is due: LoadWeights, Evaluate; else Wake or none |
        | Evaluated | Send(Report), Wake; if the next is due: LoadWeights, Evaluate |
        | TimerFired | as WeightsArrived; without weights, as Start |
        | Stop | AbandonEvaluation, Send(Stopped) |
        | Exit | Quit |
        """
        match event:
            case Start():
                self._state = _State.WAITING
                return self._ask()
            case WeightsArrived(weights=weights):
                if self._newest is None or weights.version > self._newest.version:
                    self._newest = weights
                return self._evaluate_if_due(now_s)
            case Evaluated():
                return self._evaluated(event, now_s)
            case TimerFired():
                return self._on_timer(now_s)
            case Stop():
                self._state = _State.STOPPED
                stopped = Stopped(address=self.address, counters=Counters())
                return [AbandonEvaluation(), Send(COORDINATOR, stopped)]
            case Exit():
                return [Quit()]
        raise RuntimeError(f"{self.address} cannot handle {type(event).__name__}")

    def _ask(self) -> list[Command]:
        held = -1 if self._newest is None else self._newest.version
        request = WeightsRequested(actor=self.address, held_version=held)
        return [Send(self._learner, request), Wake(RETRY_S)]

    def _on_timer(self, now_s: float) -> list[Command]:
        if self._state is not _State.WAITING:
            return []
        commands = self._evaluate_if_due(now_s)
        return commands or ([Wake(self._wait_s(now_s))] if self._newest else self._ask())

    def _wait_s(self, now_s: float) -> float:
        """Seconds until an evaluation can be due by time alone, else the retry period."""
        every_s = self._spec.every_s or 0.0
        remaining_s = self._began_s + every_s - now_s
        return remaining_s if remaining_s > 0 else RETRY_S

    def _evaluate_if_due(self, now_s: float) -> list[Command]:
        newest, last = self._newest, self._evaluated_version
        if self._state is not _State.WAITING or newest is None or newest.version == last:
            return []
        if last is not None:
            every_s, every_versions = self._spec.every_s, self._spec.every_versions
            if every_s is not None and now_s - self._began_s < every_s:
                return [Wake(self._wait_s(now_s))]
            if every_versions is not None and newest.version - last < every_versions:
                return []
        self._state = _State.EVALUATING
        self._evaluated_version = newest.version
        self._began_s = now_s
        return [LoadWeights(newest), Evaluate()]

    def _evaluated(self, event: Evaluated, now_s: float) -> list[Command]:
        assert self._evaluated_version is not None
        self._state = _State.WAITING
        episodes, of_team = len(event.returns), event.team
        row = Evaluation(
            t_s=now_s,
            evaluator=self._index,
            version=self._evaluated_version,
            episodes=episodes,
            return_mean=sum(event.returns) / episodes,
            return_min=min(event.returns),
            return_max=max(event.returns),
            length_mean_env_steps=sum(event.lengths_env_steps) / episodes,
            evaluate_s=now_s - self._began_s,
            agent_returns=UNSET if of_team is None else of_team.agents,
            policy_returns=UNSET if of_team is None else of_team.policies,
        )
        report = Send(COORDINATOR, Report(address=self.address, records=[row]))
        return [report, Wake(self._wait_s(now_s)), *self._evaluate_if_due(now_s)]
