"""What an actor does whose environments are tensors: on the device of a fused loop, or here.

Nothing is read from the device between the steps of a rollout, so there is no synchronization; the
counts are read once, when the rollout is complete. On the processor a rollout is one call of a
compiled library, as soon as there is one and if the environments draw their randomness before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from engine.blueprint import Blueprint
from engine.clock import Clock
from engine.compilation.collecting import CollectArguments, collect_named
from engine.compilation.compile_job import CompileJob
from engine.compilation.fit import Fit
from engine.compilation.library import Library
from engine.devices.visible import CPU
from engine.envs.torch_envs import TorchStep, drawn_environment, make_torch_env
from engine.errors import RunFailedError
from engine.executors.actor_base import BaseActorExecutor, Steps
from engine.executors.tensor_envs.rollout_memory import RolloutMemory
from engine.layers.inputs import STATE
from engine.rollout import Weights
from engine.timing import ENVIRONMENT, OFF, Sections

CALL_S = 0.01
"""About how long one call of a library may take: nothing else is done meanwhile."""


class TensorActorExecutor(BaseActorExecutor):
    """Collects with tensor environments.

    Args:
        blueprint, index, epoch, clock, resumes, sections: See `BaseActorExecutor`.
        memory: Of its rollouts; environments and acting are on the device of these.
        compiles: Whether to switch to compiled steps once they are available; only on the
            processor.
    """

    # Rollouts go to a learner unchanged; it could not differentiate through inference tensors.
    _keeps_no_gradient = torch.no_grad

    def __init__(
        self,
        blueprint: Blueprint,
        index: int,
        epoch: int,
        clock: Clock,
        memory: RolloutMemory,
        resumes: int = 0,
        sections: Sections = OFF,
        *,
        compiles: bool = False,
    ) -> None:
        device = memory.place
        super().__init__(
            blueprint, index, epoch, clock, resumes=resumes, device=device, sections=sections
        )
        self._memory = memory
        self._env = make_torch_env(self._spec, device)
        self._step = sections.timed(ENVIRONMENT, self._take_step)
        self._scan = sections.timed(ENVIRONMENT, self._call)
        self._observation = self._env.reset(self._env_seed)
        self._tensors: dict[str, Tensor] = {}
        self._states: Tensor | None = None
        """Of the memory before each step and after the last, [T+1, B, S]; see `Memory`."""
        layout = blueprint.layout
        if layout.has(STATE):
            shape = (layout.num_steps + 1, layout.num_envs, *layout.field(STATE).shape)
            self._states = torch.zeros(shape, device=device)
        drawn = None if self._spec.step_latency_ms else drawn_environment(self._env)
        self._collecting = None if drawn is None else CollectArguments(drawn, self._inference)
        self._continues = torch.ones(layout.num_envs, device=device)
        self._library: Library | None = None
        self._fit = Fit({})
        self._steps_per_call = 1
        self._compile_job: CompileJob | None = None
        if compiles and device.type == CPU:
            self._compile_job = CompileJob(blueprint, "act" if drawn is None else "collect")
            if self._compile_job.outcome:
                self._compile_job.tell(self._use)

    def close(self) -> None:
        if self._compile_job is not None:
            self._compile_job.close()

    def _use(self, library: Library) -> None:
        if self._collecting is None:
            self._inference.use(library)
        else:
            self._library, self._fit = library, Fit(library.signature)

    def _load(self, weights: Weights) -> None:
        self._memory.load(weights, self._inference)

    def _collect(self, ticket: int) -> Steps:
        yield from self._look_for(self._compile_job, self._use)
        tensors = self._tensors = self._memory.begin()
        observation, reward = tensors["observation"], tensors["reward"]
        observation[0] = self._observation
        states = self._states
        if states is not None:
            states[0] = states[-1]
        rollout = tensors if states is None else {**tensors, STATE: states}
        yield from self._compiled_steps(rollout) or self._eager_steps(rollout)
        self._observation = observation[-1].clone()
        if states is not None:
            tensors[STATE].copy_(states[: len(tensors[STATE])])
        made = {"observation": observation, "reward": reward, "action": tensors["action"]}
        self._check({name: each for name, each in made.items() if each.is_floating_point()})
        entries = self._enter_books()
        tensors["valid"].copy_(torch.from_numpy(entries.valid))
        if self._spec.clip_reward or self._spec.reward_scale != 1.0:
            reward.copy_(self._learnt_reward(reward))
            self._check({"reward multiplied by env.reward_scale": reward})
        yield self._memory.finish(self._describe(ticket, entries.num_env_steps), tensors)

    def _eager_steps(self, rollout: Mapping[str, Tensor]) -> Iterator[None]:
        """Takes all steps, kernel by kernel."""
        observation, reward = rollout["observation"], rollout["reward"]
        terminated, truncated = rollout["terminated"], rollout["truncated"]
        (rows,) = self._rows(rollout)
        for t, row in enumerate(rows):
            self._choose(row)
            result = self._step(rollout["action"][t])
            observation[t + 1], reward[t], terminated[t], truncated[t] = result
            if STATE in rollout:
                rollout[STATE][t + 1].mul_(self._continues[:, None])
                self._continues.copy_(~(terminated[t] | truncated[t]))
            self._moments_s.append(self._clock.now_s())
            yield None

    def _compiled_steps(self, rollout: Mapping[str, Tensor]) -> Iterator[None] | None:
        """Takes all steps by the library; None without one that fits."""
        if self._library is None or self._collecting is None:
            return None
        fixed = self._collecting.fixed(self._continues)
        rows = self._collecting.rows(rollout)
        if not self._fit.takes(collect_named(fixed, rows)):
            return None
        return self._scan_in_parts(self._library, fixed, rows)

    def _scan_in_parts(
        self, library: Library, fixed: Sequence[Tensor], rows: Sequence[Tensor]
    ) -> Iterator[None]:
        """As many steps at once as take about `CALL_S`, so that the loop hears what comes in."""
        first, total = 0, len(rows[0])
        while first < total:
            count = min(self._steps_per_call, total - first)
            took_s = self._scan(library, fixed, [each[first : first + count] for each in rows])
            self._steps_per_call = max(1, int(count * CALL_S / max(took_s, 1e-9)))
            self._note_moments(count)
            first += count
            yield None

    def _call(self, library: Library, fixed: Sequence[Tensor], rows: Sequence[Tensor]) -> float:
        """Returns the seconds that it took."""
        began_s = time.perf_counter()
        library.scan(fixed, rows)
        return time.perf_counter() - began_s

    def _note_moments(self, count: int) -> None:
        """Of so many steps that were taken at once: evenly since the one before."""
        before_s = self._moments_s[-1] if self._moments_s else self._start_s
        each_s = (self._clock.now_s() - before_s) / count
        self._moments_s += [before_s + each_s * number for number in range(1, count + 1)]

    def _check(self, fields: Mapping[str, Tensor]) -> None:
        """Refuses non-finite values, once per rollout, when the device is synchronized anyway.

        Args:
            fields: Of the rollout by name, [T, B, ...] or [T+1, B, ...].
        """
        for name, values in fields.items():
            if math.isfinite(float(values.sum())):
                continue  # one operation for all but rare rollouts: a sum can be infinite by itself
            if not bool(torch.isfinite(values).all()):
                _, env, *_ = torch.nonzero(~torch.isfinite(values))[0].tolist()
                raise RunFailedError(
                    f"{name} of environment {env} is not finite; nothing is learnt from it",
                    where=f"env.id {self._spec.id}",
                )

    def _outcomes(self, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        tensors, rows = self._tensors, slice(num_rows)
        done = tensors["terminated"][rows] | tensors["truncated"][rows]
        return tensors["reward"][rows].cpu().numpy(), done.cpu().numpy()

    def _values(self, name: str) -> np.ndarray:
        return self._tensors[name].cpu().numpy()

    def _take_step(self, action: Tensor) -> TorchStep:
        if self._spec.step_latency_ms:
            time.sleep(self._spec.step_latency_ms / 1000)
        return self._env.step(action)

    def _learnt_reward(self, reward: Tensor) -> Tensor:
        if self._spec.clip_reward:
            reward = reward.sign()
        return reward if self._spec.reward_scale == 1.0 else reward * self._spec.reward_scale
