"""What roles need to know about the layout of a run: which belong together, and what is merged."""

from __future__ import annotations

from typing import Literal

from engine.graph.policy import Trait
from engine.spec import EnvSpec, Experiment, PositiveInt, Spec, StalenessSpec

MergeRule = Literal["none", "average", "accumulate", "assemble", "all_reduce"]
"""`assemble`: each group trains some policies of a team, and the parts make up one model."""


class Cut(Spec, frozen=True, kw_only=True):
    """A policy applied to an experiment, as far as it concerns roles.

    Attributes:
        policy: Its name.
        actors: Over all groups.
        groups: Learners, each with a buffer and actors of its own; if they are apart, one for each
            policy of a team.
        merge: How the models of the groups are merged.
        has_remote_env: Whether environments are stepped by roles of their own.
        has_evaluator: Whether a role evaluates the weights of the first group.
        staleness: The rule that applies.
        fixes_staleness: Whether its mode is the policy's own, whatever the experiment says.
        requires: Traits that the algorithm must declare.
        is_on_device: Whether act, environments and update exchange tensors on one device.
    """

    policy: str
    actors: PositiveInt
    groups: PositiveInt = 1
    merge: MergeRule = "none"
    has_remote_env: bool = False
    has_evaluator: bool = False
    staleness: StalenessSpec
    fixes_staleness: bool = False
    requires: tuple[Trait, ...] = ()
    is_on_device: bool = False

    def actors_of(self, group: int) -> range:
        """Numbers of the actors of a group."""
        return range(group, self.actors, self.groups)

    def steps_tensors(self, env: EnvSpec) -> bool:
        """Whether actors step the version of tensors of these environments."""
        return self.is_on_device or env.backend == "torch"

    @property
    def is_joint(self) -> bool:
        """Whether all learners make every update together, each on its share of the batch."""
        return self.merge == "all_reduce" and self.groups > 1

    @property
    def is_apart(self) -> bool:
        """Whether each group acts and learns for one policy of a team only, so that an actor of
        each group is needed to step an environment."""
        return self.merge == "assemble"

    @property
    def has_reducer(self) -> bool:
        """Whether a role merges the models of the groups."""
        return self.merge in ("average", "accumulate", "assemble")

    @property
    def num_environments(self) -> int:
        """Vectors of environments, whether roles of their own or their actors step them."""
        return self.actors // self.groups if self.is_apart else self.actors

    def environment_of(self, actor: int) -> int:
        """Number of the environments that an actor acts in."""
        return actor // self.groups if self.is_apart else actor

    def actors_in(self, environment: int) -> range:
        """Numbers of the actors that act in these environments; one of each group if these are
        apart."""
        count = self.groups if self.is_apart else 1
        return range(environment * count, (environment + 1) * count)

    def group_of(self, actor: int) -> int:
        return actor % self.groups

    def group_of_role(self, address: str) -> int | None:
        """The group that a role belongs to; None if it serves all of them."""
        role, _, number = address.rpartition("-")
        if role == "actor" or (role == "environment" and not self.is_apart):
            return self.group_of(int(number))
        return int(number) if role in ("buffer", "learner") else None

    @property
    def addresses(self) -> tuple[str, ...]:
        """All roles but the coordinator."""
        roles = [("actor", self.actors), ("buffer", self.groups), ("learner", self.groups)]
        if self.has_remote_env:
            roles.append(("environment", self.num_environments))
        if self.has_reducer:
            roles.append(("reducer", 1))
        if self.has_evaluator:
            roles.append(("evaluator", 1))
        return tuple(f"{role}-{number}" for role, count in roles for number in range(count))


def single_cut(experiment: Experiment) -> Cut:
    """One group without remote roles: the cut of `local` and of one `tianji` group."""
    return Cut(
        policy=experiment.policy,
        actors=experiment.actors,
        has_evaluator=experiment.evaluation is not None,
        staleness=experiment.staleness,
    )
