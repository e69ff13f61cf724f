"""Settings of an environment that do not suit several agents, or only them."""

from __future__ import annotations

from engine.errors import ConfigError
from engine.spec import EnvSpec, PolicySharing

OWN_WRAPPERS = (
    "env.id: module:function with a function that makes the environment and puts PettingZoo's"
    " wrappers around it"
)


def refuse_for_teams(spec: EnvSpec) -> None:
    """Raises ConfigError for settings that have no meaning for several agents."""
    if spec.clip_reward:
        raise ConfigError(
            "the sign of a team's reward is not the sum of the signs of its agents' rewards",
            where="env.clip_reward",
            fix="leave it out; env.reward_scale scales all of them",
        )
    if spec.life_loss_terminates:
        raise ConfigError(
            "an environment of several agents has no lives; an agent can leave before the others",
            where="env.life_loss_terminates",
            fix="leave it out",
        )


def refuse_wrappers(spec: EnvSpec) -> None:
    """Raises ConfigError if there are wrappers, which are for environments of Gymnasium."""
    if spec.wrappers:
        raise ConfigError(
            f"wrappers of Gymnasium do not go around {spec.id}, which is none of its environments",
            where="env.wrappers",
            fix=OWN_WRAPPERS,
        )


def refuse_sharing(sharing: PolicySharing) -> None:
    """Raises ConfigError if it says who shares a policy: for environments of one agent."""
    if sharing is not None:
        raise ConfigError(
            "the environment has one agent, so no policy can be shared",
            where="agents",
            fix="leave it out",
        )


def refuse_without_team(spec: EnvSpec) -> None:
    """Raises ConfigError for settings that only suit several agents."""
    if spec.central_state:
        raise ConfigError(
            f"{spec.id} has one agent, so there is no central critic",
            where="env.central_state",
            fix="leave it out",
        )
