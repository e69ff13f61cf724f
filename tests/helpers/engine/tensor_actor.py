"""Actors with environments of tensors."""

from __future__ import annotations

import torch

from engine.blueprint import Blueprint
from engine.clock import Clock
from engine.executors.tensor_envs.actor import TensorActorExecutor
from engine.executors.tensor_envs.rollout_memory import DeviceRollouts


def on_device(blueprint: Blueprint, clock: Clock) -> TensorActorExecutor:
    """The actor of a loop that is fused on a device, which is the processor."""
    memory = DeviceRollouts(blueprint.layout, torch.device("cpu"))
    return TensorActorExecutor(blueprint, 0, 0, clock, memory)
