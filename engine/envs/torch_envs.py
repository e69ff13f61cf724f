"""Environments whose states are tensors: all copies step together on one device.

They are for policies that fuse the whole loop on a device, and for `env.backend: torch`. Like all
environments here they restart in next-step mode: the observation at the end of an episode is the
true last one, and the following step of that copy only resets, whatever the action; its reward is
not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

import gymnasium
import torch
from torch import Tensor

from engine.algorithms.base import Spaces
from engine.blame import blamed
from engine.envs.actions.choices import counted_from_0, is_counted_from_0
from engine.envs.actions.squash import TensorSquash, squashed_columns
from engine.envs.actions.tensors import TensorActions, TensorRange
from engine.envs.teams.suitability import refuse_sharing
from engine.envs.torch_acrobot import TorchAcrobot
from engine.envs.torch_breakout import TorchBreakout
from engine.envs.torch_cartpole import TorchCartPole
from engine.envs.torch_pendulum import TorchPendulum
from engine.errors import ConfigError
from engine.spaces.leaves import Structure
from engine.spaces.observations import observation_leaves
from engine.spec import EnvSpec, PolicySharing

TORCH = "torch"
"""The back end of actors that step them on a processor."""
TorchStep: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""Observation [B, ...], reward float32 [B], terminated bool [B], truncated bool [B]."""


class TorchEnvironment(Protocol):
    """B copies of an environment. It must not wait for its device: no `.item()`, no `.cpu()`."""

    @property
    def single_observation_space(self) -> gymnasium.spaces.Box: ...

    @property
    def single_action_space(self) -> gymnasium.Space[object]: ...

    def reset(self, seed: int) -> Tensor:
        """Starts new episodes in every copy; equal seeds give equal episodes.

        Returns:
            Observations [B, ...], with the dtype of the observation space.
        """
        ...

    def step(self, action: Structure) -> TorchStep:
        """Steps every copy once. An action is a tensor [B, ...] with the action space's shape and
        dtype; for a Dict or Tuple a dict or tuple of them."""
        ...


@runtime_checkable
class DrawnEnvironment(TorchEnvironment, Protocol):
    """One whose randomness is drawn before, so that a whole rollout can be compiled.

    All else that differs between two steps is in tensors that it, or an object in it, holds as an
    attribute; they keep shapes and dtypes, and none is a view of another.
    """

    def draw(self, num_steps: int) -> Tensor:
        """The randomness of so many steps, [T, B, ...], in floats; without any, [T, B, 0]. Drawn
        for one step after the other it is the same."""
        ...

    def step_with(self, action: Structure, drawn: Tensor) -> TorchStep:
        """`step` with one row of `draw`; reads no other randomness, and no value of a tensor."""
        ...


MakeTorchEnvironment: TypeAlias = Callable[..., TorchEnvironment]
TORCH_ENVIRONMENTS: dict[str, MakeTorchEnvironment] = {
    "Acrobot-v1": TorchAcrobot,
    "CartPole-v1": TorchCartPole,
    "MinAtar/Breakout-v1": TorchBreakout,
    "Pendulum-v1": TorchPendulum,
}


def register_torch_environment(env_id: str, make: MakeTorchEnvironment) -> None:
    """Registers a tensor version of an environment, for the policy `gpu-only` and for
    `env.backend: torch`.

    Args:
        env_id: Such as `Corridor-v0`.
        make: Called as `make(num_envs, device, **env.kwargs)`.

    Raises:
        ConfigError: The id has a tensor version already.
    """
    if env_id in TORCH_ENVIRONMENTS:
        raise ConfigError(f"a torch version of {env_id!r} exists already", where="modules")
    TORCH_ENVIRONMENTS[env_id] = make


def make_torch_env(spec: EnvSpec, device: torch.device) -> TorchEnvironment:
    """Makes `spec.num_envs` copies on a device; they take flat actions (`TorchActions`).

    Raises:
        ConfigError: There is no tensor version, or its constructor raises.
    """
    if spec.registered_id not in TORCH_ENVIRONMENTS:
        known = ", ".join(sorted(TORCH_ENVIRONMENTS))
        raise ConfigError(
            f"{spec.id} has no torch version, which {_who_needs(spec)}; available: {known}",
            where="env.id",
            fix=f"{_way_out(spec)}, or add one with register_torch_environment",
        )
    if spec.backend not in ("gymnasium", TORCH):
        raise ConfigError(
            f"an on-device loop steps environments of tensors, not {spec.backend}'s",
            where="env.backend",
            fix="leave it out, or use another policy",
        )
    if spec.wrappers:
        names = ", ".join(str(entry["name"]) for entry in spec.wrappers)
        raise ConfigError(
            f"wrappers go around single environments, not around those of tensors: {names}",
            where="env.wrappers",
            fix=f"{_way_out(spec)}, or register a torch version that does the same",
        )
    if spec.life_loss_terminates:
        raise ConfigError(
            "environments of tensors do not report lives", where="env.life_loss_terminates"
        )
    with blamed(f"the torch version of {spec.id} cannot be made", where="env"):
        env = TORCH_ENVIRONMENTS[spec.registered_id](spec.num_envs, device, **spec.kwargs)
    space = env.single_action_space
    if isinstance(space, gymnasium.spaces.Discrete) and is_counted_from_0(space):
        if spec.squash_actions:
            squashed_columns(space)  # refuses
        return env
    return TorchActions(env, device, squashes=spec.squash_actions, scales=spec.scale_actions)


def _who_needs(spec: EnvSpec) -> str:
    return "env.backend=torch needs" if spec.backend == TORCH else "an on-device loop needs"


def _way_out(spec: EnvSpec) -> str:
    return "leave out env.backend" if spec.backend == TORCH else "use another policy"


def torch_spaces_of(env: TorchEnvironment, sharing: PolicySharing = None) -> Spaces:
    """The spaces of one copy.

    Args:
        env: Whose.
        sharing: Which agents share a policy, as the experiment has it.

    Raises:
        ConfigError: An observation is more than one array, or `sharing` is given: it has one agent.
    """
    refuse_sharing(sharing)
    space = env.single_observation_space
    if [leaf.path for leaf in observation_leaves(space).values()] != [()]:
        raise ConfigError(
            f"the observation of an environment of tensors is one array, not {space}",
            where="env.id",
            fix="put its parts into one Box, or step it as Gymnasium does",
        )
    return Spaces(env.single_observation_space, env.single_action_space)


def declared_action_space(env: TorchEnvironment) -> gymnasium.Space[object]:
    """The action space of one copy as it declares it."""
    return env.declared if isinstance(env, TorchActions) else env.single_action_space


class TorchActions:
    """Takes actions as algorithms choose them, as `engine.envs.actions.vector` has it.

    Args:
        env: Its single action space is any that `leaves_of` takes apart.
        device: Where it lives.
        squashes: Whether bounded reals are squashed instead of clipped.
        scales: Whether reals are scaled.

    Attributes:
        declared: The action space of one copy as it declares it.

    Raises:
        ConfigError: It is another, or there is nothing to squash.
    """

    def __init__(
        self,
        env: TorchEnvironment,
        device: torch.device,
        *,
        squashes: bool = False,
        scales: bool = True,
    ) -> None:
        self._env = env
        self._space = self.declared = space = env.single_action_space
        self._convert: Callable[[Tensor], Structure]
        if isinstance(space, gymnasium.spaces.Box):
            self._convert = TensorRange(space, device, scales)
        else:
            self._convert = TensorActions(space, device, scales)
        self._squash = TensorSquash(space, device) if squashes else None
        if isinstance(space, gymnasium.spaces.Discrete):
            self._space = counted_from_0(space)

    @property
    def single_observation_space(self) -> gymnasium.spaces.Box:
        return self._env.single_observation_space

    @property
    def single_action_space(self) -> gymnasium.Space[object]:
        return self._space

    def reset(self, seed: int) -> Tensor:
        return self._env.reset(seed)

    @property
    def inner(self) -> TorchEnvironment:
        """The environment that takes actions as it declares them."""
        return self._env

    def step(self, action: Tensor) -> TorchStep:
        return self._env.step(self._converted(action))

    def draw(self, num_steps: int) -> Tensor:
        """See `drawn_environment`."""
        assert isinstance(self._env, DrawnEnvironment)
        return self._env.draw(num_steps)

    def step_with(self, action: Tensor, drawn: Tensor) -> TorchStep:
        """See `drawn_environment`."""
        assert isinstance(self._env, DrawnEnvironment)
        return self._env.step_with(self._converted(action), drawn)

    def _converted(self, action: Tensor) -> Structure:
        return self._convert(action if self._squash is None else self._squash(action))


def drawn_environment(env: TorchEnvironment) -> DrawnEnvironment | None:
    """The same environment, if its randomness can be drawn before its steps."""
    innermost = env.inner if isinstance(env, TorchActions) else env
    if not isinstance(innermost, DrawnEnvironment):
        return None
    assert isinstance(env, DrawnEnvironment)
    return env
