"""One step of a loop that is fused on the processor, as a function to compile: acting, then a step
of all environments. A scan of it collects a rollout.

    (weights, what environments hold, continues; inputs, noise, draws; what the step writes)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call

from engine.blueprint import Blueprint
from engine.compilation.library import describe
from engine.compilation.policy_inference import (
    PolicyInference,
    Rounding,
    as_tensors,
    split_row,
    with_states,
)
from engine.compilation.tracing import BoundAct, Traced, trace
from engine.devices.visible import CPU
from engine.envs.held_tensors import HeldTensors
from engine.envs.torch_envs import DrawnEnvironment, drawn_environment, make_torch_env
from engine.layers.inputs import STATE

OBSERVATION, *_REST = ("observation", "reward", "terminated", "truncated")
"""What a step of the environments writes, in the order in which they return it."""
_NUM_WRITTEN = 4


class CollectArguments:
    """The arguments of such a step.

    Args:
        env: The environments, after their reset.
        inference: The policy.

    Attributes:
        held: What the environments hold.
    """

    def __init__(self, env: DrawnEnvironment, inference: PolicyInference) -> None:
        self._env, self._inference = env, inference
        self.held = HeldTensors(env)

    def fixed(self, continues: Tensor) -> list[Tensor]:
        """Those that all steps have in common.

        Args:
            continues: 1 where the step before did not end its episode, float32 [B]; only read and
                changed if there is a memory.
        """
        return [*self._inference.weights, *self.held.tensors(), continues]

    def rows(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """The others, each [T, ...], with new noise and new draws.

        Args:
            tensors: The fields of a rollout; `state` has T + 1 rows.
        """
        fields = self._inference.fields(tensors)
        self._inference.check_once(tuple(each[0] for each in fields))
        draws = self._env.draw(len(tensors["reward"]))
        written = [tensors[OBSERVATION][1:], *(tensors[name] for name in _REST)]
        return [*fields, draws, *written]


def collect_named(fixed: Sequence[Tensor], rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """What a compiled step relies on, by the names that it has in a signature."""
    arguments = (*fixed, *(each[0] for each in rows))
    return {str(i): tensor for i, tensor in enumerate(arguments)}


def trace_collect(blueprint: Blueprint) -> Traced:
    """Acting, then a step of all environments.

    Raises:
        RuntimeError, AssertionError: One of both is not a pure function of its arguments.
    """
    env = drawn_environment(make_torch_env(blueprint.env, torch.device(CPU)))
    if env is None:
        raise RuntimeError(f"{blueprint.env.id} does not draw its randomness before its steps")
    env.reset(0)
    env_slice = blueprint.slice_of(0)
    inference = PolicyInference(blueprint.algorithm, env_slice, torch.Generator())
    collecting = CollectArguments(env, inference)
    if not collecting.held.are_apart():
        raise RuntimeError(f"tensors that {blueprint.env.id} holds share memory")
    layout = blueprint.layout
    tensors = with_states(as_tensors(layout.views(layout.allocate())), layout)
    continues = torch.ones(layout.num_envs)
    fixed, rows = collecting.fixed(continues), collecting.rows(tensors)
    function = _CollectFunction(blueprint, env, inference, collecting.held)
    arguments = [*fixed, *(each[0] for each in rows)]
    return trace(function, arguments, describe(collect_named(fixed, rows)))


class _CollectFunction:
    """The step with flat arguments, in place on what is held and on the last ones."""

    def __init__(
        self,
        blueprint: Blueprint,
        env: DrawnEnvironment,
        inference: PolicyInference,
        held: HeldTensors,
    ) -> None:
        self._bound = BoundAct(blueprint.algorithm)
        self._rounding = Rounding(self._bound)
        self._env, self._held = env, held
        self._inputs, self._names = inference.inputs, inference.names
        self._num_held = len(held.tensors())

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        num_weights = self._rounding.num_weights
        held = arguments[num_weights : num_weights + self._num_held]
        continues, *row = arguments[num_weights + self._num_held :]
        *fields, draws = row[:-_NUM_WRITTEN]
        inputs, noise, outputs = split_row(fields, self._inputs)
        pieces = self._rounding.pieces(*arguments[:num_weights])
        with torch.no_grad():
            chosen: dict[str, Tensor] = functional_call(self._bound, pieces, (inputs, noise))
            for name, output in zip(self._names, outputs, strict=True):
                values = chosen[name]
                output.copy_(values * continues[:, None] if name == STATE else values)
            self._step(outputs[0], draws, held, row[-_NUM_WRITTEN:])
            if STATE in self._names:
                _, _, terminated, truncated = row[-_NUM_WRITTEN:]
                continues.copy_(~(terminated | truncated))
        return ()

    def _step(
        self, action: Tensor, draws: Tensor, held: Sequence[Tensor], written: Sequence[Tensor]
    ) -> None:
        """Steps the environments, with `held` in place of what they hold."""
        with self._held.replaced(held):
            results = self._env.step_with(action, draws)
            after = self._held.tensors()
        for to, values in zip(written, results, strict=True):
            to.copy_(values)
        put_back(held, after)


def put_back(held: Sequence[Tensor], after: Sequence[Tensor]) -> None:
    """Copies what is held after a step to where it is held. Tensors may have changed places, as an
    observation that becomes the one before: such are copied elsewhere first."""
    memory = {each.untyped_storage()._cdata for each in held}
    changed = [
        (old, new.clone() if new.untyped_storage()._cdata in memory else new)
        for old, new in zip(held, after, strict=True)
        if new is not old
    ]
    for old, new in changed:
        old.copy_(new)
