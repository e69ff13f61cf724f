"""Which weights an actor requests, keeps, and loads for a ticket."""

from __future__ import annotations

from typing import Protocol

from engine.messages import TicketGranted, WeightsRequested
from engine.rollout import Weights


class WantedWeights(Protocol):
    """The weights of one actor: `NewestWeights` or `ExactWeights`."""

    @property
    def held_version(self) -> int:
        """Of those that are here; -1 before the first."""
        ...

    def request(self) -> WeightsRequested | None:
        """The request for what it waits for; None if it waits for nothing. Can be repeated."""
        ...

    def take(self, weights: Weights) -> None:
        """Keeps weights that have arrived, if they are of use."""
        ...

    def want(self, version: int | None) -> WeightsRequested | None:
        """The request to make now, so that weights for this ticket or the next are here in time."""
        ...

    def suffice(self, ticket: TicketGranted) -> bool:
        """Whether a rollout can be collected under this ticket."""
        ...

    def load(self, ticket: TicketGranted) -> Weights | None:
        """What to load for it; None if that is loaded already."""
        ...


class NewestWeights:
    """A ticket names the oldest weights that will do; the newest that have come are loaded.

    Args:
        actor: Who takes them.
    """

    def __init__(self, actor: str) -> None:
        self._actor = actor
        self._newest: Weights | None = None
        self._loaded_version = -1

    @property
    def held_version(self) -> int:
        """See `WantedWeights`."""
        return self._newest.version if self._newest else self._loaded_version

    def request(self) -> WeightsRequested:
        """See `WantedWeights`."""
        return WeightsRequested(actor=self._actor, held_version=self.held_version)

    def take(self, weights: Weights) -> None:
        """See `WantedWeights`."""
        if weights.version > self.held_version:
            self._newest = weights

    def want(self, version: int | None) -> None:
        """Nothing: all that are newer come by themselves."""

    def suffice(self, ticket: TicketGranted) -> bool:
        """See `WantedWeights`."""
        return self.held_version >= max(ticket.min_version, 0)

    def load(self, ticket: TicketGranted) -> Weights | None:
        """See `WantedWeights`."""
        weights, self._newest = self._newest, None
        if weights is not None:
            self._loaded_version = weights.version
        return weights


class ExactWeights:
    """A ticket names the weights to collect with, and those of the rollout after it.

    Args:
        actor: Who takes them.
    """

    def __init__(self, actor: str) -> None:
        self._actor = actor
        self._wanted: int | None = None
        """Requested last, and not loaded yet."""
        self._here: Weights | None = None
        """These, once they are here."""
        self._loaded_version = -1

    @property
    def held_version(self) -> int:
        """See `WantedWeights`."""
        return self._here.version if self._here else self._loaded_version

    def request(self) -> WeightsRequested | None:
        """See `WantedWeights`; without a ticket it is unknown which."""
        if self._wanted is None or self._here is not None:
            return None
        held, version = self.held_version, self._wanted
        return WeightsRequested(actor=self._actor, held_version=held, version=version)

    def take(self, weights: Weights) -> None:
        """See `WantedWeights`."""
        if weights.version == self._wanted:
            self._here = weights

    def want(self, version: int | None) -> WeightsRequested | None:
        """See `WantedWeights`; nothing if they are here or on their way."""
        if version is None or version in (self._wanted, self._loaded_version):
            return None
        self._wanted, self._here = version, None
        return self.request()

    def suffice(self, ticket: TicketGranted) -> bool:
        """See `WantedWeights`."""
        here = -1 if self._here is None else self._here.version
        return ticket.min_version in (self._loaded_version, here)

    def load(self, ticket: TicketGranted) -> Weights | None:
        """See `WantedWeights`."""
        if ticket.min_version == self._loaded_version:
            return None
        weights, self._here, self._wanted = self._here, None, None
        assert weights is not None
        self._loaded_version = weights.version
        return weights
