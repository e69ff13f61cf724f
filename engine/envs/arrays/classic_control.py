"""Gymnasium's CartPole, Acrobot, Pendulum and MountainCar as arrays: its equations and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import VectorEnv

from engine.envs.arrays.copies import Array, ArrayCopies, Bools, Floats


class ArrayCartPole(CartPoleVectorEnv):
    """Gymnasium's own vector of CartPole-v1, without what its step does more than once.

    Its random numbers are those of all copies together.

    Attributes:
        state: Position and angle, each before its speed, float64 [4, B]; the base declares None.
    """

    state: Any

    def __init__(self, num_envs: int, max_episode_steps: int) -> None:
        super().__init__(num_envs, max_episode_steps)
        self._any_done = False
        for name in ("gravity", "masspole", "total_mass", "length", "polemass_length", "tau"):
            # NumPy would convert a number of Python's in each operation.
            setattr(self, name, np.array(getattr(self, name)))
        self._four_thirds = np.array(4.0 / 3.0)
        self._forces = np.array([-self.force_mag, self.force_mag])
        self._bounds = np.array([[self.x_threshold], [self.theta_threshold_radians]])
        self._ones = np.ones(num_envs, np.float32)
        self._rate: Floats = np.empty((4, num_envs))
        """Of change of `state`."""

    def step(self, action: Array) -> tuple[Array, Array, Bools, Bools, dict[str, Any]]:
        """See `CartPoleVectorEnv`; actions are those of a Discrete(2), which is not checked.

        The fewer operations the better, in place where possible: of a few copies, what an
        operation costs is its call.
        """
        self._move(action)
        state = self._rate * self.tau
        state += self.state
        beyond = np.abs(state[::2]) > self._bounds
        terminated = beyond[0] | beyond[1]
        self.steps += 1
        truncated = self.steps >= self.max_episode_steps
        reward = self._ones.copy()
        if self._any_done:
            done = self.prev_done
            state[:, done] = self.np_random.uniform(self.low, self.high, (4, int(done.sum())))
            self.steps[done] = 0
            reward[done] = 0.0
            terminated[done] = truncated[done] = False
        self.state = state
        self.prev_done = terminated | truncated
        self._any_done = bool(np.count_nonzero(self.prev_done))
        return state.T.astype(np.float32), reward, terminated, truncated, {}

    def _move(self, action: Array) -> None:
        """Writes `_rate`, in the order of Gymnasium's operations."""
        state, rate = self.state, self._rate
        speed = state[3]
        cosine, sine = np.cos(state[2]), np.sin(state[2])
        push = self.polemass_length * (speed * speed)
        push *= sine
        push += self._forces.take(action)
        push /= self.total_mass
        inertia = cosine * cosine
        inertia *= self.masspole
        inertia /= self.total_mass
        np.subtract(self._four_thirds, inertia, out=inertia)
        inertia *= self.length
        sine *= self.gravity
        sine -= cosine * push
        np.divide(sine, inertia, out=rate[3])
        cosine *= self.polemass_length * rate[3]
        cosine /= self.total_mass
        np.subtract(push, cosine, out=rate[1])
        rate[::2] = state[1::2]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """See `CartPoleVectorEnv`."""
        self._any_done = False
        return super().reset(seed=seed, options=options)


class ArrayAcrobot(ArrayCopies):
    """Acrobot-v1 (Sutton, 1996; the book's equations): both angles and both speeds."""

    def __init__(self, num_envs: int, max_episode_steps: int) -> None:
        high = np.array([1.0, 1.0, 1.0, 1.0, 4 * np.pi, 9 * np.pi], dtype=np.float32)
        observation = spaces.Box(-high, high, dtype=np.float32)
        super().__init__(num_envs, observation, spaces.Discrete(3), 4, max_episode_steps)

    def begin(self, generator: np.random.Generator) -> Array:
        return generator.uniform(low=-0.1, high=0.1, size=(4,)).astype(np.float32)

    def move(self, actions: Array) -> tuple[Floats, Bools]:
        torque, start = actions - 1.0, self.state
        k1 = _acrobot_change(start, torque)
        k2 = _acrobot_change(start + 0.1 * k1, torque)
        k3 = _acrobot_change(start + 0.1 * k2, torque)
        k4 = _acrobot_change(start + 0.2 * k3, torque)
        state = start + 0.2 / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)
        _wrap(state[:2])
        np.clip(state[2], -4 * np.pi, 4 * np.pi, out=state[2])
        np.clip(state[3], -9 * np.pi, 9 * np.pi, out=state[3])
        self.state = state
        terminated = -np.cos(state[0]) - np.cos(state[1] + state[0]) > 1.0
        return np.where(terminated, 0.0, -1.0), terminated

    def observe(self, state: Array) -> Array:
        cosines, sines = np.cos(state[:2]), np.sin(state[:2])
        return np.stack((cosines[0], sines[0], cosines[1], sines[1], state[2], state[3]))


def _acrobot_change(state: Floats, torque: Floats) -> Floats:
    """Derivative of states [4, B], with torques [B] between the links. Links are 1 m long, with
    masses of 1 kg at 0.5 m and moments of inertia of 1."""
    speed_1, speed_2 = state[2], state[3]
    cosine, sine = np.cos(state[1]), np.sin(state[1])
    d1 = 0.25 + (1.0 + 0.25 + cosine) + 1.0 + 1.0
    d2 = 0.25 + 0.5 * cosine + 1.0
    phi2 = 0.5 * 9.8 * np.cos(state[0] + state[1] - np.pi / 2.0)
    phi1 = (
        -0.5 * speed_2**2 * sine
        - speed_2 * speed_1 * sine
        + 1.5 * 9.8 * np.cos(state[0] - np.pi / 2)
        + phi2
    )
    change = np.empty_like(state)
    change[:2] = state[2:]
    acceleration = torque + d2 / d1 * phi1 - 0.5 * speed_1**2 * sine - phi2
    acceleration /= 0.25 + 1.0 - d2**2 / d1
    change[3] = acceleration
    change[2] = -(d2 * acceleration + phi1) / d1
    return change


def _wrap(angles: Floats) -> None:
    """Makes them directions from -pi to pi, in place, by whole turns as often as needed."""
    while (above := angles > np.pi).any():
        angles[above] -= 2 * np.pi
    while (below := angles < -np.pi).any():
        angles[below] += 2 * np.pi


class ArrayPendulum(ArrayCopies):
    """Pendulum-v1: angle and speed."""

    def __init__(self, num_envs: int, max_episode_steps: int) -> None:
        high = np.array([1.0, 1.0, 8], dtype=np.float32)
        observation = spaces.Box(-high, high, dtype=np.float32)
        action = spaces.Box(-2.0, 2.0, (1,), np.float32)
        super().__init__(num_envs, observation, action, 2, max_episode_steps)

    def begin(self, generator: np.random.Generator) -> Array:
        high = np.array([np.pi, 1.0])
        return generator.uniform(low=-high, high=high)

    def move(self, actions: Array) -> tuple[Floats, Bools]:
        angle, speed = self.state
        torque = np.clip(actions[:, 0], -2.0, 2.0)
        direction = ((angle + np.pi) % (2 * np.pi)) - np.pi
        cost = direction**2 + 0.1 * speed**2 + 0.001 * (torque**2)
        state = np.empty_like(self.state)
        faster = speed + (3 * 10.0 / 2.0 * np.sin(angle) + 3.0 * torque) * 0.05
        np.clip(faster, -8, 8, out=state[1])
        np.add(angle, state[1] * 0.05, out=state[0])
        self.state = state
        return -cost, np.zeros(self.num_envs, np.bool_)

    def observe(self, state: Array) -> Array:
        return np.stack((np.cos(state[0]), np.sin(state[0]), state[1]))


class ArrayMountainCar(ArrayCopies):
    """MountainCar-v0 (Moore, 1990): position and velocity."""

    def __init__(self, num_envs: int, max_episode_steps: int) -> None:
        low, high = np.array([-1.2, -0.07], np.float32), np.array([0.6, 0.07], np.float32)
        observation = spaces.Box(low, high, dtype=np.float32)
        super().__init__(num_envs, observation, spaces.Discrete(3), 2, max_episode_steps)

    def begin(self, generator: np.random.Generator) -> Array:
        return np.array([generator.uniform(low=-0.6, high=-0.4), 0.0])

    def move(self, actions: Array) -> tuple[Floats, Bools]:
        position, velocity = self.state
        state = np.empty_like(self.state)
        faster = velocity + ((actions - 1) * 0.001 + np.cos(3 * position) * -0.0025)
        np.clip(faster, -0.07, 0.07, out=state[1])
        np.clip(position + state[1], -1.2, 0.6, out=state[0])
        state[1][(state[0] == -1.2) & (state[1] < 0)] = 0.0
        self.state = state
        terminated = (state[0] >= 0.5) & (state[1] >= 0)
        return np.full(self.num_envs, -1.0), terminated

    def observe(self, state: Array) -> Array:
        return state


_ACROBOT: Mapping[str, object] = {
    "dt": 0.2,
    **{f"LINK_{name}_{link}": 1.0 for name in ("LENGTH", "MASS") for link in (1, 2)},
    **{f"LINK_COM_POS_{link}": 0.5 for link in (1, 2)},
    "LINK_MOI": 1.0,
    "MAX_VEL_1": 4 * np.pi,
    "MAX_VEL_2": 9 * np.pi,
    "AVAIL_TORQUE": [-1.0, 0.0, 1.0],
    "torque_noise_max": 0.0,
    "book_or_nips": "book",
}
"""What can be set in the class of the single environment, with what holds here."""
_GYMNASIUMS = "gymnasium.envs.classic_control."
_ARRAYS: Mapping[str, Callable[[int, int], VectorEnv[Array, Array, Array]]] = {
    "gymnasium.envs.classic_control.cartpole:CartPoleEnv": ArrayCartPole,
    "gymnasium.envs.classic_control.acrobot:AcrobotEnv": ArrayAcrobot,
    "gymnasium.envs.classic_control.pendulum:PendulumEnv": ArrayPendulum,
    "gymnasium.envs.classic_control.mountain_car:MountainCarEnv": ArrayMountainCar,
}
"""By the entry point of the single environment: an id can be registered anew."""


def as_arrays(env_id: str, num_envs: int) -> VectorEnv[Array, Array, Array] | None:
    """Copies of an environment as arrays; None if there is no such version, or if it has arguments,
    is a vector of the user's own, or has a class with other numbers."""
    registered = gymnasium.registry.get(env_id)
    if registered is None or registered.kwargs or registered.additional_wrappers:
        return None
    vector = registered.vector_entry_point
    if vector is not None and not str(vector).startswith(_GYMNASIUMS):
        return None
    make = _ARRAYS.get(str(registered.entry_point))
    if make is None or registered.max_episode_steps is None:
        return None
    if make is ArrayAcrobot and any(
        getattr(AcrobotEnv, name) != value for name, value in _ACROBOT.items()
    ):
        return None
    return make(num_envs, registered.max_episode_steps)
