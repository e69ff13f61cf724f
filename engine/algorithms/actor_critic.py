"""The common part of actor-critic algorithms: initial state, acting, and going through one batch
several times, in random minibatches.

Each algorithm adds its samples (`samples`) and its update (`update`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from engine.algorithms.base import Batch, EnvSlice, LearnerState, Spaces, initial_state
from engine.algorithms.gradient import Order, Samples, Step
from engine.algorithms.networks import (
    CENTRAL,
    PolicyValueNetwork,
    action_field,
    after_resets,
    check_action_space,
    draw_noise,
)
from engine.algorithms.replicas import minibatch_rows, shared_step
from engine.algorithms.schedules import factor, linear
from engine.layers.cores import state_size
from engine.layers.distributions import Distribution
from engine.layers.inputs import STATE, Inputs, map_leaves, mask_of, observation_of
from engine.rollout import Field
from engine.spaces.action_parts import parts_of
from engine.spaces.observations import mask_field, observation_fields
from engine.spec import NetworkSpec


class ActorCritic:
    """Acts with the policy of a `PolicyValueNetwork`, with any spaces, masks and memory.

    Args:
        name: Of the algorithm, for errors.
        network: Encoders, trunks and core.
        spaces: Of one environment.
        central: What a central value sees; None: what the policy does.
        normalizes_reward: Whether the network keeps statistics of returns.

    Raises:
        ConfigError: A space is not supported.
    """

    def __init__(
        self,
        name: str,
        network: NetworkSpec,
        spaces: Spaces,
        *,
        central: Box | None = None,
        normalizes_reward: bool = False,
    ) -> None:
        check_action_space(name, spaces.action)
        self._network_spec = network
        self._spaces = spaces
        self._central = central
        self._normalizes_reward = normalizes_reward
        self._state_size = state_size(network.core)
        self._names_of_states = tuple(field.name for field in self.fields if field.extra_rows)

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of a rollout: observations, masks of their choices and the memory before the
        first step, where there are any; per step the action and ln pi(a_t | s_t)."""
        spaces = self._spaces
        mask = [mask_field(parts_of(spaces.action).num_logits)] if spaces.has_action_mask else []
        size = self._state_size
        state = [Field(STATE, "float32", (size,), num_rows=1)] if size else []
        return (
            *observation_fields(spaces.observation),
            *mask,
            action_field(spaces.action),
            Field("log_prob", "float32"),
            *state,
        )

    def network(self) -> PolicyValueNetwork:
        """See `Algorithm`."""
        return PolicyValueNetwork(
            self._spaces.observation,
            self._spaces.action,
            self._network_spec,
            central=self._central,
            normalizes_reward=self._normalizes_reward,
        )

    def init(self, seed: int) -> LearnerState:
        """See `Algorithm`."""
        return initial_state(self.network, seed)

    def noise(self, generator: torch.Generator, num_steps: int, env_slice: EnvSlice) -> Tensor:
        """Noise for sampling, float32 [T, B, outputs of the policy]; see `Algorithm`."""
        return draw_noise(self._spaces.action, generator, (num_steps, env_slice.count))

    def act(self, network: nn.Module, inputs: Inputs, noise: Tensor) -> dict[str, Tensor]:
        """Samples the policy; see `Algorithm`."""
        policy, memory = self._policy(network, inputs)
        a_t = policy.sample(noise)
        return {"action": a_t, "log_prob": policy.log_prob(a_t), **memory}

    def act_greedily(self, network: nn.Module, inputs: Inputs) -> Tensor | Mapping[str, Tensor]:
        """The policy's mode."""
        policy, memory = self._policy(network, inputs)
        return {"action": policy.mode(), **memory} if memory else policy.mode()

    def _policy(self, network: nn.Module, inputs: Inputs) -> tuple[Distribution, dict[str, Tensor]]:
        """pi(. | s), and the state after this step if there is a memory."""
        assert isinstance(network, PolicyValueNetwork)
        observation, mask = observation_of(inputs), mask_of(inputs)
        if not self._state_size:
            return network.distribution(observation, mask), {}
        assert not isinstance(inputs, Tensor)
        policy, state = network.step(observation, inputs[STATE], mask)
        return policy, {STATE: state}


def evaluate_rollouts(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """ln pi(a_t | s_t) [T, B], entropy [T, B] and v(s_t) [T+1, B], in one pass of the network."""
    assert isinstance(network, PolicyValueNetwork)
    action, valid, central = batch["action"], batch["valid"], batch.get(CENTRAL)
    observation, mask = observation_of(batch), mask_of(batch)
    if network.core is not None:
        policy, flat_value = network.unroll(
            observation, batch[STATE][0], after_resets(valid), mask, central
        )
    else:
        flat = map_leaves(lambda leaf: leaf.flatten(0, 1), observation)
        policy, flat_value = network.evaluate(
            flat,
            None if mask is None else mask.flatten(0, 1),
            None if central is None else central.flatten(0, 1),
        )
    value = flat_value.view(len(valid) + 1, -1)
    # The last row has no action: the policy's outputs there are not used.
    actions = torch.cat((action, torch.zeros_like(action[:1]))).flatten(0, 1)
    log_prob = policy.log_prob(actions).view(value.shape)[:-1]
    return log_prob, policy.entropy().view(value.shape)[:-1], value


@torch.no_grad()
def log_ratios(network: nn.Module, batch: Batch) -> Tensor:
    """ln pi(a_t | s_t) - ln mu(a_t | s_t) of the valid steps, NaN elsewhere; [T, B], in main
    memory."""
    log_ratio = evaluate_rollouts(network, batch)[0] - batch["log_prob"]
    return log_ratio.where(batch["valid"], math.nan).cpu()


class EntropyBonus(Protocol):
    """The hyperparameters of an entropy bonus."""

    @property
    def entropy_coefficient(self) -> float: ...

    @property
    def entropy_coefficient_final(self) -> float | None: ...


def entropy_schedule(config: EntropyBonus, progress: float) -> dict[str, float]:
    """The coefficient at `progress`, by its name; none if it is constant, and so part of a loss."""
    final = config.entropy_coefficient_final
    if final is None:
        return {}
    return {"entropy_coefficient": linear(config.entropy_coefficient, final, progress)}


def entropy_bonus(
    entropy: Tensor, weight: Tensor, coefficient: Tensor | float
) -> tuple[Tensor, Tensor]:
    """The mean entropy of a policy, and what a loss subtracts for it.

    Args:
        entropy: Of each step.
        weight: Of each step, [N].
        coefficient: Constant, or one number for each step.
    """
    mean = weight @ entropy.flatten()
    if isinstance(coefficient, Tensor):
        return mean, weight @ (coefficient * entropy).flatten()
    return mean, coefficient * mean


class Epochs(Protocol):
    """Hyperparameters of an update; `PpoConfig` describes them."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def learning_rate_final(self) -> float | None: ...

    @property
    def minibatch_steps(self) -> int: ...

    @property
    def num_epochs(self) -> int: ...

    @property
    def target_kl(self) -> float | None: ...


def rows_of_epochs(
    config: Epochs, shape: Sequence[int], state: LearnerState, has_memory: bool
) -> Order:
    """The rows of all minibatches of all epochs.

    Args:
        config: How many epochs and how large minibatches.
        shape: Of this learner's share of a batch, (T, columns).
        state: Whose generator draws them.
        has_memory: Whether a row is the whole sequence of one environment.
    """
    num_steps, num_columns = shape
    length = num_steps if has_memory else 1
    return minibatch_rows(
        (num_steps // length, num_columns),
        config.num_epochs,
        config.minibatch_steps // length,
        state.generator,
        state.replicas,
    )


def take_epochs(
    config: Epochs,
    state: LearnerState,
    step: Step,
    samples: Samples,
    order: Order,
    divergences: Sequence[int],
    rate: float = 1.0,
) -> Tensor:
    """Takes the steps of all epochs, or of fewer with `target_kl`.

    Args:
        config: See `Epochs`.
        state: Changed by the steps.
        step: What to do on each minibatch.
        samples: By name; rows of `order`.
        order: From `rows_of_epochs`.
        divergences: Which of the step's metrics are compared with `target_kl`.
        rate: Factor of the learning rate, beside that of its schedule.

    Returns:
        This learner's share of the metrics of each step, [steps, metrics].
    """
    shared = shared_step(step, state.replicas)
    rate *= factor(config.learning_rate, config.learning_rate_final, state.progress)
    if config.target_kl is None:
        told = state.steps.take(state, shared, samples, order, rate)
        state.num_updates += len(told)
        return told
    parts, per_epoch = [], len(order) // config.num_epochs
    for first in range(0, len(order), per_epoch):
        epoch = order[first : first + per_epoch]
        parts.append(state.steps.take(state, shared, samples, epoch, rate))
        of_last = state.replicas.sum(parts[-1][-1][list(divergences)])
        if float(of_last.max()) > config.target_kl:
            break
    told = torch.cat(parts)
    state.num_updates += len(told)
    return told
