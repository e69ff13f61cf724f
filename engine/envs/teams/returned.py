"""What one copy of a team has returned, before any of it is used: slips are refused with one clear
error that names environment and step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from engine.errors import RunFailedError
from engine.wording import plural

ByAgent: TypeAlias = Mapping[Any, Any]
"""Values by an environment's own names of its agents."""
OF_RESET = ("observations", "infos")
OF_STEP = ("observations", "rewards", "terminations", "truncations", "infos")


@dataclass(frozen=True)
class Occasion:
    """A reset or a step of one copy.

    Attributes:
        env_id: Of the environment.
        copy: Its number.
        num_steps: Steps of the vector so far, with this one; 0: the first reset.
    """

    env_id: str
    copy: int
    num_steps: int

    def refused(self, what: str, fix: str = "") -> RunFailedError:
        """An error that says where and when this was."""
        when = f"in step {self.num_steps}" if self.num_steps else "in reset"
        return RunFailedError(
            f"{what}, in environment {self.copy} {when}; nothing is learnt from it",
            where=f"env.id {self.env_id}",
            fix=fix,
        )


def of_reset(result: object, occasion: Occasion) -> tuple[ByAgent, ByAgent]:
    """Observations and infos by agent.

    Raises:
        RunFailedError: It is something else.
    """
    observed, infos = _parts(result, "reset", OF_RESET, occasion)
    return observed, infos


def of_step(
    result: object, occasion: Occasion
) -> tuple[ByAgent, ByAgent, ByAgent, ByAgent, ByAgent]:
    """Observations, rewards, terminations, truncations and infos by agent.

    Raises:
        RunFailedError: It is something else.
    """
    observed, rewards, terminations, truncations, infos = _parts(result, "step", OF_STEP, occasion)
    return observed, rewards, terminations, truncations, infos


def reward_of(name: str, given: object, occasion: Occasion) -> float:
    """The reward of the agent with this name.

    Raises:
        RunFailedError: It is no finite number.
    """
    try:
        reward = float("nan") if getattr(given, "ndim", 0) else float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        reward = float("nan")
    if not math.isfinite(reward):
        raise occasion.refused(f"the reward of {name} is {given!r:.60}; expected a finite number")
    return reward


def _parts(
    result: object, function: str, names: Sequence[str], occasion: Occasion
) -> Sequence[ByAgent]:
    expected = f"expected ({', '.join(names)})"
    if not isinstance(result, tuple | list):
        raise occasion.refused(f"{function} returned {result!r:.60}; {expected}")
    if len(result) != len(names):
        raise occasion.refused(f"{function} returned {plural(len(result), 'value')}; {expected}")
    for name, values in zip(names, result, strict=True):
        if not isinstance(values, Mapping):
            raise occasion.refused(
                f"{name} of {function} are {values!r:.60}; expected a dict by agent"
            )
    return result
