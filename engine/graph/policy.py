"""Distribution policies as data (MSRL, ATC 2023): which functions share a process, how many
replicas there are, and which channel carries each value that crosses a process boundary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from engine.config.config_file import convert, parse_yaml, read_yaml, suggest
from engine.errors import ConfigError
from engine.spec import NonNegativeInt, PositiveInt, Spec, StalenessMode, StalenessSpec

Function = Literal["env_step", "act", "store", "update", "reduce", "evaluate"]
Value = Literal[
    "observation", "action", "rollout", "batch", "weights", "model", "merged", "gradient"
]
ChannelKind = Literal["gather", "on_request", "latest", "barrier", "step", "exchange", "all_reduce"]
Merge = Literal["average", "accumulate"]
Trait = Literal["corrects_staleness", "shares_batches", "samples_queue", "samples_replay"]


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a function.

    Attributes:
        inputs: Values that it needs.
        options: Values that it takes if the policy has an edge for them.
        outputs: Values that it produces.
    """

    inputs: frozenset[str]
    outputs: frozenset[str]
    options: frozenset[str] = frozenset()


FUNCTIONS = {
    "env_step": Signature(frozenset({"action"}), frozenset({"observation"})),
    "act": Signature(frozenset({"observation", "weights"}), frozenset({"action", "rollout"})),
    "store": Signature(frozenset({"rollout"}), frozenset({"batch"})),
    "update": Signature(
        frozenset({"batch"}),
        frozenset({"weights", "model", "gradient"}),
        frozenset({"merged", "gradient"}),
    ),
    "evaluate": Signature(frozenset({"weights"}), frozenset()),
    "reduce": Signature(frozenset({"model"}), frozenset({"merged"})),
}
OPTIONAL = frozenset({"reduce", "evaluate"})
"""Functions that a policy can omit."""
ROLE_FUNCTIONS = {
    "actor": "act",
    "buffer": "store",
    "learner": "update",
    "environment": "env_step",
    "reducer": "reduce",
    "evaluator": "evaluate",
}
"""The function that makes a role. An actor whose fragment also has `env_step` steps its own
environments; otherwise `env_step` is a separate role."""

PRIMED = frozenset({"weights", "observation"})
"""Values that exist at the start: initial parameters, observations of a reset."""


def roles_of(functions: Iterable[str]) -> list[str]:
    """The roles of a fragment with these functions, in the order of `ROLE_FUNCTIONS`."""
    held = set(functions)
    return [
        role
        for role, function in ROLE_FUNCTIONS.items()
        if function in held and not (role == "environment" and "act" in held)
    ]


def inputs_of(functions: Iterable[str]) -> set[str]:
    """Values that a fragment needs, including those that it produces itself."""
    return {value for function in functions for value in FUNCTIONS[function].inputs}


def options_of(functions: Iterable[str]) -> set[str]:
    """Values that a fragment takes if there is an edge for them."""
    return {value for function in functions for value in FUNCTIONS[function].options}


def outputs_of(functions: Iterable[str]) -> set[str]:
    """What a fragment produces."""
    return {value for function in functions for value in FUNCTIONS[function].outputs}


class FragmentSpec(Spec, frozen=True, kw_only=True):
    """Functions that share a process and call each other directly."""

    functions: tuple[Function, ...]
    """What the process does."""
    replicas: PositiveInt | Literal["actors", "groups"]
    """How many processes: a number, the experiment's `actors`, or its `groups`."""
    only_with_groups: bool = False
    """Left out, with its edges, if the experiment has one group."""
    on_device: bool = False
    """The whole loop, including its environments, runs on a GPU if there is one: see `gpu-only`."""


class EdgeSpec(Spec, frozen=True, kw_only=True):
    """A value that the processes of one fragment send to those of another."""

    source: str
    """The sending fragment."""
    target: str
    """The receiving fragment."""
    carries: Value
    """What is sent."""
    channel: ChannelKind
    """`gather`: many sources, nothing lost, bounded by tickets. `on_request`: the target requests
    it. `latest`: broadcast, only the newest counts, never blocks. `barrier`: broadcast, every
    target waits for the newest. `step`: one message per environment step. `exchange`: a source
    sends its model whenever its last one was answered, and does not wait. `all_reduce`: all
    replicas synchronize in every update."""

    @property
    def label(self) -> str:
        return f"edge {self.source} -> {self.target} ({self.carries})"


class StalenessRule(Spec, frozen=True, kw_only=True):
    """What of the experiment's `staleness` the policy overrides; `null` keeps a field."""

    mode: Literal["block", "drop", "correct", "unbounded"] | None = None
    """As an experiment's."""
    max_lag: NonNegativeInt | None = None
    """As an experiment's."""


class DistributionPolicy(Spec, frozen=True, kw_only=True):
    """A distribution policy."""

    name: str
    """Shown in plans and reports."""
    summary: str
    """One line about it."""
    stands_for: str = ""
    """Systems with this layout."""
    fragments: dict[str, FragmentSpec]
    """Which functions share a process, by a name of your choice."""
    edges: tuple[EdgeSpec, ...] = ()
    """What crosses between processes."""
    merge: Merge = "average"
    """What `reduce` does. `average`: the mean of the newest models of all groups. `accumulate`: a
    parameter server, to which every worker adds its progress."""
    staleness: StalenessRule = StalenessRule()
    requires: tuple[Trait, ...] = ()
    """Traits that an algorithm must declare to run under this policy."""
    splits_teams: bool = False
    """Several agents with several policies: if the algorithm declares `trains_apart`, each policy
    has a learner of its own, so that there are as many groups as policies."""

    def staleness_of(self, wanted: StalenessSpec) -> StalenessSpec:
        """The experiment's rule, with the fields that the policy overrides."""
        mode: StalenessMode | None = self.staleness.mode
        max_lag = self.staleness.max_lag
        if self.is_synchronous:
            mode, max_lag = "block", 0
        if wanted.is_fixed and mode in (None, "block", "drop"):  # which it is within their bound
            mode = "fixed"
        found = replace(
            wanted,
            mode=mode or wanted.mode,
            max_lag=wanted.max_lag if max_lag is None else max_lag,
            lag=wanted.lag if max_lag is None else min(wanted.lag, max_lag),
        )
        return found.held if self.alternates else found

    @property
    def alternates(self) -> bool:
        """Whether a process that learns does all else for it: then either goes on only while the
        other does not, and no bound on lag makes it faster."""
        needed = {"act", "env_step", "update"}
        return any(needed <= set(item.functions) for item in self.fragments.values())

    @property
    def fixes_staleness(self) -> bool:
        """Whether the policy overrides the experiment's mode of staleness."""
        return self.is_synchronous or self.staleness.mode is not None

    @property
    def is_on_device(self) -> bool:
        """Whether the loop exchanges tensors on one device."""
        return any(item.on_device for item in self.fragments.values())

    @property
    def is_synchronous(self) -> bool:
        """Whether all actors wait for the new weights of each batch."""
        return any(edge.channel == "barrier" for edge in self.edges)


def built_in_policies() -> list[str]:
    """Names of the policies that come with TianJi."""
    folder = resources.files("engine.graph") / "policies"
    return sorted(Path(entry.name).stem for entry in folder.iterdir())


def is_policy_file(name: str) -> bool:
    """Whether this names a file rather than a built-in policy."""
    return name.endswith((".yaml", ".yml")) or "/" in name


def read_policy(name: str) -> DistributionPolicy:
    """Reads a built-in policy, or one from a YAML file.

    Raises:
        ConfigError: There is none of that name, or it is not a policy.
    """
    if is_policy_file(name):
        return convert(read_yaml(Path(name)), DistributionPolicy)
    known = built_in_policies()
    if name not in known:
        raise ConfigError(
            f"unknown distribution policy {name!r}",
            where="policy",
            fix=suggest(name, known) or "use a built-in policy, or a .yaml file",
        )
    file = resources.files("engine.graph") / "policies" / f"{name}.yaml"
    return convert(
        parse_yaml(file.read_text(encoding="utf-8"), source=f"policy {name}"), DistributionPolicy
    )
