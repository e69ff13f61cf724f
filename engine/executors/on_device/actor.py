"""What an actor does if the whole loop is fused on one device: steps tensor environments.

Nothing is read from the device between the steps of a rollout, so there is no synchronization; the
counts are read once, when the rollout is complete.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from engine.blueprint import Blueprint
from engine.clock import Clock
from engine.devices.tensors import DeviceRollout, DeviceWeights, allocate_on
from engine.devices.visible import CPU
from engine.envs.torch_envs import TorchStep, make_torch_env
from engine.errors import RunFailedError
from engine.executors.actor_base import BaseActorExecutor, Steps
from engine.layers.inputs import STATE
from engine.rollout import Layout, Weights
from engine.timing import ENVIRONMENT, OFF, Sections

NO_BUFFER = Layout((), 0, 0).allocate()


class DeviceActorExecutor(BaseActorExecutor):
    """Collects with tensor environments; rollouts stay on the device.

    Args:
        blueprint, index, epoch, clock, resumes, sections: See `BaseActorExecutor`.
        device: The device of the loop; the processor by default.
    """

    # Rollouts go to a learner unchanged; it could not differentiate through inference tensors.
    _keeps_no_gradient = torch.no_grad

    def __init__(
        self,
        blueprint: Blueprint,
        index: int,
        epoch: int,
        clock: Clock,
        resumes: int = 0,
        sections: Sections = OFF,
        *,
        device: torch.device | None = None,
    ) -> None:
        device = device or torch.device(CPU)
        super().__init__(
            blueprint, index, epoch, clock, resumes=resumes, device=device, sections=sections
        )
        self._device = device
        self._env = make_torch_env(self._spec, device)
        self._step = sections.timed(ENVIRONMENT, self._take_step)
        self._observation = self._env.reset(self._env_seed)
        self._tensors: dict[str, Tensor] = {}
        self._states: Tensor | None = None
        """Of the memory before each step and after the last, [T+1, B, S]; see `Memory`."""
        layout = blueprint.layout
        if layout.has(STATE):
            shape = (layout.num_steps + 1, layout.num_envs, *layout.field(STATE).shape)
            self._states = torch.zeros(shape, device=device)
            self._continues = torch.ones(layout.num_envs, device=device)

    def close(self) -> None:
        """Nothing to release: tensors are freed with the process."""

    def _load(self, weights: Weights) -> None:
        assert isinstance(weights, DeviceWeights), "the learner is on another device"
        self._inference.parameters.load(weights.vector)
        self._inference.refresh()

    def _collect(self, ticket: int) -> Steps:
        layout = self._blueprint.layout
        tensors = self._tensors = allocate_on(self._device, layout)
        observation, reward = tensors["observation"], tensors["reward"]
        terminated, truncated = tensors["terminated"], tensors["truncated"]
        observation[0] = self._observation
        states = self._states
        if states is not None:
            states[0] = states[-1]
        (rows,) = self._rows(tensors if states is None else {**tensors, STATE: states})
        for t, row in enumerate(rows):
            self._choose(row)
            result = self._step(tensors["action"][t])
            observation[t + 1], reward[t], terminated[t], truncated[t] = result
            if states is not None:
                states[t + 1].mul_(self._continues[:, None])
                self._continues = (~(terminated[t] | truncated[t])).to(states.dtype)
            self._moments_s.append(self._clock.now_s())
            yield None
        self._observation = observation[-1]
        if states is not None:
            tensors[STATE].copy_(states[: len(tensors[STATE])])
        self._check({"observation": observation, "reward": reward, "action": tensors["action"]})
        entries = self._enter_books()
        tensors["valid"].copy_(entries.valid)
        tensors["reward"] = self._learnt_reward(reward)
        self._check({"reward multiplied by env.reward_scale": tensors["reward"]})
        yield DeviceRollout(self._describe(ticket, entries.num_env_steps), NO_BUFFER, tensors)

    def _check(self, fields: Mapping[str, Tensor]) -> None:
        """Refuses non-finite values, once per rollout, when the device is synchronized anyway.

        Args:
            fields: Of the rollout by name, [T, B, ...] or [T+1, B, ...].
        """
        for name, values in fields.items():
            if not bool(torch.isfinite(values).all()):
                _, env, *_ = torch.nonzero(~torch.isfinite(values))[0].tolist()
                raise RunFailedError(
                    f"{name} of environment {env} is not finite; nothing is learnt from it",
                    where=f"env.id {self._spec.id}",
                )

    def _outcomes(self, num_rows: int) -> tuple[Tensor, Tensor]:
        tensors, rows = self._tensors, slice(num_rows)
        return tensors["reward"][rows], tensors["terminated"][rows] | tensors["truncated"][rows]

    def _values(self, name: str) -> Tensor:
        return self._tensors[name]

    def _take_step(self, action: Tensor) -> TorchStep:
        if self._spec.step_latency_ms:
            time.sleep(self._spec.step_latency_ms / 1000)
        return self._env.step(action)

    def _learnt_reward(self, reward: Tensor) -> Tensor:
        if self._spec.clip_reward:
            reward = reward.sign()
        return reward if self._spec.reward_scale == 1.0 else reward * self._spec.reward_scale
