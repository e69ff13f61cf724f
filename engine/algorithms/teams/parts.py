"""Which parameters of a team's network belong to which policy, if each has a learner of its own.

    network.policies: ModuleDict      one module for each policy, by its name; nothing else learns

So the parts are disjoint and make up the whole, and a model is put together from those of all
learners by taking of each its own. What they exchange is a model,

    parameters [P] ─┼─ first moments [P] ─┼─ second moments [P]      float32

With the moments of Adam every learner's checkpoint holds the whole state: any of them can be
resumed, under any policy. During training the moments of other parts are kept aside, since without
a gradient they would still move parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from engine.algorithms.base import LearnerState, SampleRequest
from engine.errors import ConfigError
from engine.spaces.team import SharedPolicy, Team

POLICIES = "policies"
"""Name of the module that holds those of the policies."""
NUM_VECTORS = 3
"""Of a model that learners exchange: parameters, and both moments."""


def is_of(network: nn.Module, policies: Iterable[SharedPolicy]) -> Tensor:
    """Which parameters belong to these policies, bool [P], in the order of the flat vector."""
    prefixes = tuple(f"{POLICIES}.{policy.name}." for policy in policies)
    spans = [
        torch.full((parameter.numel(),), name.startswith(prefixes))
        for name, parameter in network.named_parameters()
    ]
    return torch.cat(spans)


class OwnPart:
    """The part that a learner trains, within a state that holds the whole model.

    Args:
        state: Where it is trained.
        team: Whose `own` policies this learner trains.
    """

    def __init__(self, state: LearnerState, team: Team) -> None:
        self._vector, *self._moments = _vectors(state)
        self._others = ~is_of(state.network, team.own_policies).to(self._vector.device)
        self._aside: Sequence[Tensor] = ()
        self._set_aside()

    def model(self) -> Tensor:
        """The model, float32 [3 P] in main memory; only this learner's part of it is new."""
        return torch.cat((self._vector, *self._moments)).cpu()

    def take(self, model: Tensor) -> None:
        """Takes over the parts of the others, from a model [3 P]."""
        parameters, *moments = model.to(self._vector.device).view(NUM_VECTORS, -1)
        self._vector.copy_(torch.where(self._others, parameters, self._vector))
        self._aside = moments

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Meanwhile the state is whole, to be saved."""
        for moments, told in zip(self._moments, self._aside, strict=True):
            moments.copy_(torch.where(self._others, told, moments))
        try:
            yield
        finally:
            self._set_aside()

    def _set_aside(self) -> None:
        self._aside = [moments.clone() for moments in self._moments]
        for moments in self._moments:
            moments.masked_fill_(self._others, 0.0)


def whole_model(state: LearnerState, team: Team) -> tuple[Tensor, list[Tensor]]:
    """A state as learners exchange it, float32 [3 P], and which entries the learner of each policy
    trains, bool [3 P]; in the order of the team's policies."""
    parts = [is_of(state.network, (policy,)).repeat(NUM_VECTORS) for policy in team.policies]
    return torch.cat(_vectors(state)).cpu(), parts


def _vectors(state: LearnerState) -> tuple[Tensor, ...]:
    return state.weights.vector.detach(), state.optimizer.mean, state.optimizer.variance


def check_apart(name: str, samples: SampleRequest, network: nn.Module, team: Team) -> None:
    """Checks that every policy of a team can have a learner of its own.

    Args:
        name: Of the algorithm, for errors.
        samples: What it declares.
        network: Of all policies.
        team: The agents.

    Raises:
        ConfigError: It trains them together, or a parameter belongs to none of them.
    """
    if not samples.trains_apart:
        raise ConfigError(
            f"{name} trains the policies of a team together",
            where="policy",
            fix="use another policy, such as tianji, or another algorithm, such as ippo",
        )
    if not bool(is_of(network, team.policies).all()):
        raise ConfigError(
            f"{name} declares trains_apart, but its network has parameters that belong to no"
            f" policy: those of a policy are in the module {POLICIES}.NAME",
            where="algorithm.name",
        )
