"""The functions of an algorithm, and the roles that run them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


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
