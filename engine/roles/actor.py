"""The actor: collects a rollout whenever it has a ticket and weights new enough for it.

    WAITING --ticket, weights >= its min_version--> COLLECTING --rollout complete--> WAITING
       `------------------------- Stop -------------------------`---> STOPPED

Neither samples nor weights block it: a finished rollout is sent without waiting, and newer weights
are loaded at the next rollout boundary if some have arrived. With a fixed lag, every rollout is
collected with exactly the weights that its ticket names. The actor requests those of the next one
while it collects, so they are usually there in time.
"""

from __future__ import annotations

from enum import Enum, auto

from msgspec import UNSET, UnsetType

from engine.messages import (
    COORDINATOR,
    Counters,
    Exit,
    Report,
    RolloutArrived,
    Start,
    StepRequested,
    StepTaken,
    Stop,
    Stopped,
    TicketGranted,
    TicketRequested,
    WeightsArrived,
    WeightsRequested,
)
from engine.roles.commands import (
    AbandonRollout,
    CollectRollout,
    Command,
    LoadWeights,
    Quit,
    Send,
    TakeStep,
    Wake,
)
from engine.roles.events import (
    Event,
    Noted,
    RolloutAbandoned,
    RolloutCollected,
    StepWanted,
    TimerFired,
)
from engine.roles.wanted_weights import ExactWeights, NewestWeights, WantedWeights
from engine.trace.records import Event as TraceEvent
from engine.trace.records import Production

RETRY_S = 2.0
"""An actor that has waited this long asks again; requests are idempotent, so losses do no harm."""


class _State(Enum):
    JOINED = auto()
    WAITING = auto()
    COLLECTING = auto()
    STOPPED = auto()


class ActorRole:
    """Decides for one actor.

    Args:
        index: Its number.
        epoch: Its incarnation.
        buffer, learner: Addresses that it sends rollouts to and gets weights from.
        environment: Address of the role that steps its environments, if that is another: then every
            step is a message to it and one back. By default the one of its own number.
        has_fixed_lag: Whether a ticket's weights are to be loaded, and no newer ones.
    """

    def __init__(
        self,
        index: int,
        epoch: int,
        buffer: str,
        learner: str,
        environment: str = "",
        *,
        has_fixed_lag: bool = False,
    ) -> None:
        self.address = f"actor-{index}"
        self._index = index
        self._epoch = epoch
        self._environment = environment or f"environment-{index}"
        self._buffer = buffer
        self._learner = learner
        self._state = _State.JOINED
        self._ticket: TicketGranted | None = None
        self._last_ticket = -1
        """The newest used ticket; while the actor waits, its rollout has been sent."""
        self._weights: WantedWeights
        self._weights = (ExactWeights if has_fixed_lag else NewestWeights)(self.address)
        self._version = -1
        """Of the weights that it collects with."""
        self._max_lag: int | UnsetType = UNSET
        """Of the rollout that it collects, if the bound moves."""
        self._step: StepRequested | None = None
        """The unanswered request to its remote environments."""
        self._waiting_since_s = 0.0
        self._wait_s = 0.0
        self._collected = 0
        self._sent_rollouts = 0

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Handles one event.

        | event | commands |
        |---|---|
        | Start | Send(WeightsRequested, TicketRequested), Wake |
        | TicketGranted, WeightsArrived | once both suffice: LoadWeights, CollectRollout; with a |
        | | fixed lag also Send(WeightsRequested), for this rollout or the next |
        | StepWanted (remote environments) | Send(StepRequested), Wake |
        | StepTaken | TakeStep |
        | RolloutCollected | Send(RolloutArrived, Report), Wake |
        | Noted | Send(Report) |
        | TimerFired | the unanswered requests again, Wake |
        | Stop | AbandonRollout |
        | RolloutAbandoned | Send(Report, Stopped) |
        | Exit | Quit |
        """
        match event:
            case Start():
                self._state = _State.WAITING
                self._waiting_since_s = now_s
                return self._ask()
            case TicketGranted():
                return self._granted(event, now_s)
            case WeightsArrived(weights=weights):
                self._weights.take(weights)
                return self._try_to_collect(now_s)
            case StepWanted(number=number, action=action):
                self._step = StepRequested(actor=self.address, number=number, action=action)
                return self._ask_for_step()
            case StepTaken():
                return self._step_taken(event)
            case RolloutCollected():
                return self._collected_rollout(event, now_s)
            case Noted(kind=kind, detail=detail):
                row = TraceEvent(t_s=now_s, kind=kind, host="", role=self.address, detail=detail)
                return [Send(COORDINATOR, Report(address=self.address, records=[row]))]
            case TimerFired():
                return self._ask() if self._state is _State.WAITING else self._ask_for_step()
            case Stop():
                return [AbandonRollout()]
            case RolloutAbandoned():
                return self._stopped(event, now_s)
            case Exit():
                return [Quit()]
        raise RuntimeError(f"{self.address} cannot handle {type(event).__name__}")

    def _ask(self) -> list[Command]:
        """Requests what it waits for; if it holds a ticket, whether older weights suffice by now.

        The weights possibly never arrive: another actor, whose rollout they depend on, can be lost.
        The buffer then answers with the same ticket, for older weights.
        """
        request = TicketRequested(
            actor=self.address,
            held_version=self._weights.held_version,
            epoch=self._epoch,
            last_ticket=self._last_ticket,
        )
        return [
            *self._ask_learner(self._weights.request()),
            Wake(RETRY_S),
            Send(self._buffer, request),
        ]

    def _ask_learner(self, request: WeightsRequested | None) -> list[Command]:
        return [] if request is None else [Send(self._learner, request)]

    def _ask_for_step(self) -> list[Command]:
        if self._step is None:
            return []
        return [Send(self._environment, self._step), Wake(RETRY_S)]

    def _step_taken(self, taken: StepTaken) -> list[Command]:
        if self._step is None or taken.number != self._step.number:
            return []  # the answer to a repeated or abandoned request
        self._step = None
        return [TakeStep(taken)] if self._state is _State.COLLECTING else []

    def _granted(self, ticket: TicketGranted, now_s: float) -> list[Command]:
        if self._state is not _State.WAITING or ticket.ticket <= self._last_ticket:
            return []  # the answer to a repeated request, or too late
        self._ticket = ticket
        return self._try_to_collect(now_s)

    def _try_to_collect(self, now_s: float) -> list[Command]:
        ticket = self._ticket
        if self._state is not _State.WAITING or ticket is None:
            return []
        if not self._weights.suffice(ticket):
            return self._ask_learner(self._weights.want(ticket.min_version))
        commands: list[Command] = []
        weights = self._weights.load(ticket)
        if weights is not None:
            commands.append(LoadWeights(weights))
            self._version = weights.version
        self._state = _State.COLLECTING
        self._ticket, self._last_ticket = None, ticket.ticket
        self._max_lag = UNSET if ticket.max_lag is None else ticket.max_lag
        self._wait_s = now_s - self._waiting_since_s
        ahead = self._ask_learner(self._weights.want(ticket.next_version))
        return [*commands, CollectRollout(ticket.ticket), *ahead]

    def _collected_rollout(self, event: RolloutCollected, now_s: float) -> list[Command]:
        self._state = _State.WAITING
        self._waiting_since_s = now_s
        info = event.rollout.info
        self._collected += info.num_env_steps
        self._sent_rollouts += 1
        row = Production(
            t_s=info.end_s,
            actor=self._index,
            epoch=self._epoch,
            sequence=info.sequence,
            env_steps=info.num_env_steps,
            env_steps_total=self._collected,
            version_min=info.version_min,
            version_max=info.version_max,
            collect_s=info.end_s - info.start_s,
            wait_s=self._wait_s,
            agent_steps=event.agent_steps,
            max_lag=self._max_lag,
        )
        report = Report(address=self.address, records=[row, *event.episodes])
        return [
            Send(self._buffer, RolloutArrived(event.rollout, self._weights.held_version)),
            Send(COORDINATOR, report),
            Wake(RETRY_S),
        ]

    def _stopped(self, event: RolloutAbandoned, now_s: float) -> list[Command]:
        self._state, self._step = _State.STOPPED, None
        commands: list[Command] = []
        self._collected += event.num_env_steps
        if event.num_env_steps:
            row = Production(
                t_s=now_s,
                actor=self._index,
                epoch=self._epoch,
                sequence=self._sent_rollouts,
                env_steps=event.num_env_steps,
                env_steps_total=self._collected,
                version_min=self._version,
                version_max=self._version,
                collect_s=event.collect_s,
                wait_s=self._wait_s,
                sent=False,
                agent_steps=event.agent_steps,
                max_lag=self._max_lag,
            )
            report = Report(address=self.address, records=[row, *event.episodes])
            commands.append(Send(COORDINATOR, report))
        counters = Counters(
            collected=self._collected,
            unsent=event.num_env_steps,
            sent_rollouts=self._sent_rollouts,
        )
        return [*commands, Send(COORDINATOR, Stopped(address=self.address, counters=counters))]
