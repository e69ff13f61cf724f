"""rejax's PPO, DQN or SAC on one task, with gymnax's environments. Runs in its interpreter.

    python rejax_driver.py job.json

It runs until it is asked to stop (SIGINT or SIGTERM). Environments and training are one compiled
function, so nothing can be counted while it runs: each environment keeps the episodes that it has
finished, and between two calls the driver writes them down.
"""

from __future__ import annotations

import json
import math
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import gymnax
import jax
import numpy as np
from jax import numpy as jnp
from recorder import Recorder, recorder_of_process
from rejax import get_algo
from rejax_settings import FOREVER, SETTINGS

CALL_STEPS = 512
"""Env steps of one call, at least: a call takes less than a second."""


class CountedState(NamedTuple):
    """State of one environment.

    Attributes:
        inner: gymnax's.
        episode_return, length: Of the episode so far.
        finished: Returns and lengths of the last episodes, [N, 2]; number i is in row i modulo N.
        num_finished: How many there were.
    """

    inner: Any
    episode_return: jax.Array
    length: jax.Array
    finished: jax.Array
    num_finished: jax.Array


class CountedEnv:
    """A gymnax environment, whose step gives six values, as rejax wants it: with five.

    Args:
        env: gymnax's.
        params: Its parameters.
        num_kept: Finished episodes that its state holds.
    """

    def __init__(self, env: Any, params: Any, num_kept: int) -> None:  # noqa: ANN401 - gymnax's
        self._env = env
        self._num_kept = num_kept
        self.default_params = params

    def action_space(self, params: Any) -> Any:  # noqa: ANN401
        return self._env.action_space(params)

    def observation_space(self, params: Any) -> Any:  # noqa: ANN401
        return self._env.observation_space(params)

    def reset(self, key: jax.Array, params: Any) -> tuple[jax.Array, CountedState]:  # noqa: ANN401
        observation, inner = self._env.reset(key, params)
        nothing = jnp.zeros((self._num_kept, 2))
        zero = jnp.zeros((), jnp.int32)
        return observation, CountedState(inner, jnp.zeros(()), zero, nothing, zero)

    def step(
        self,
        key: jax.Array,
        state: CountedState,
        action: jax.Array,
        params: Any,  # noqa: ANN401
    ) -> tuple[jax.Array, CountedState, jax.Array, jax.Array, dict[str, Any]]:
        observation, inner, reward, terminated, truncated, _ = self._env.step(
            key, state.inner, action, params
        )
        is_over = jnp.logical_or(terminated, truncated)
        total, length = state.episode_return + reward, state.length + 1
        row = state.num_finished % self._num_kept
        episode = jnp.stack([total, length.astype(total.dtype)])
        counted = CountedState(
            inner,
            jnp.where(is_over, 0.0, total),
            jnp.where(is_over, 0, length),
            state.finished.at[row].set(jnp.where(is_over, episode, state.finished[row])),
            state.num_finished + is_over,
        )
        return observation, counted, reward, is_over, {}


class Loop:
    """rejax's algorithm, as one compiled function that is called again and again.

    Args:
        task: The resolved task of `job.json`.
        seed: Of everything.
    """

    def __init__(self, task: dict[str, Any], seed: int) -> None:
        self.hp = task["algorithm"]
        num_envs = task["workers"] * task["envs_per_worker"]
        self.iteration_steps = self.hp.get("batch_steps", num_envs)
        num_iterations = math.ceil(CALL_STEPS / self.iteration_steps)
        self.call_steps = num_iterations * self.iteration_steps
        env, params = gymnax.make(task["env"]["id"])
        algorithm = get_algo(self.hp["name"]).create(
            env=CountedEnv(env, params, self.call_steps // num_envs),
            env_params=params,
            num_envs=num_envs,
            total_timesteps=FOREVER,
            learning_rate=self.hp["learning_rate"],
            gamma=self.hp["discount"],
            **SETTINGS[self.hp["name"]](task, num_envs),
        )
        self.state = jax.jit(algorithm.init_state)(jax.random.PRNGKey(seed))

        def call(state: Any) -> Any:  # noqa: ANN401
            return jax.lax.fori_loop(
                0, num_iterations, lambda _, each: algorithm.train_iteration(each), state
            )

        self.call = jax.jit(call, donate_argnums=0).lower(self.state).compile()
        self.num_steps = 0
        self.num_finished = np.zeros(num_envs, np.int64)

    def advance(self, recorder: Recorder) -> None:
        """One call, and what it has done."""
        self.state = jax.block_until_ready(self.call(self.state))
        self.num_steps += self.call_steps
        counted = self.state.env_state
        finished, totals = np.asarray(counted.finished), np.asarray(counted.num_finished)
        recorder.steps(self.call_steps)
        for index, total in enumerate(totals):
            for number in range(self.num_finished[index], total):
                recorder.episode(*finished[index, number % finished.shape[1]])
        self.num_finished = totals
        recorder.claimed(int(self.state.global_step))
        self.report(recorder)

    def report(self, recorder: Recorder) -> None:
        """Totals of what it has trained; optimiser steps from rejax's own rule."""
        if "num_epochs" in self.hp:
            samples = self.num_steps * self.hp["num_epochs"]
            recorder.trained(self.num_steps, samples, samples // self.hp["minibatch_steps"])
            return
        trained = max(0, self.num_steps - self.hp["min_replay_size"])
        samples = round(trained * self.hp["replay_ratio"])
        recorder.trained(trained, samples, samples // self.hp["batch_size"])


def main() -> None:
    """Trains until a signal comes."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    recorder = recorder_of_process()
    recorder.phase("imported")
    loop = Loop(job["task"], job["seed"])
    recorder.phase("compiled")
    while not stopping:
        loop.advance(recorder)
    recorder.phase("stopped")
    recorder.close()


if __name__ == "__main__":
    main()
