"""Starts a run with the weights of a former one: only these, and only those that fit."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.algorithms.base import Algorithm, LearnerState
from engine.executors.checkpoint import read_tensors
from engine.trace.warm_start import WantedTensor, WarmStart


def wanted_tensors(algorithm: Algorithm) -> dict[str, WantedTensor]:
    """The parameters of an algorithm's network, by name."""
    scheduled = algorithm.samples().scheduled_parameters
    return {
        name: WantedTensor(tuple(parameter.shape), parameter.requires_grad, name in scheduled)
        for name, parameter in algorithm.network().named_parameters()
    }


def start_with(file: Path, warm_start: WarmStart, state: LearnerState) -> None:
    """Overwrites the parameters that a run takes from a former one.

    A target network starts equal to the network, as in every run. Optimiser, counters and random
    numbers stay as `Algorithm.init` made them.

    Args:
        file: `initial_weights.safetensors` of the run.
        warm_start: What it contains.
        state: As `Algorithm.init` made it.

    Raises:
        ConfigError: The file is damaged or forged.
    """
    taken = frozenset(warm_start.weights.taken)
    places = {
        name: parameter.detach()
        for name, parameter in state.network.named_parameters()
        if name in taken
    }
    saved = read_tensors(file, warm_start.num_bytes, warm_start.sha256, places)
    targets: dict[str, torch.Tensor] = {}
    if state.target is not None:
        targets = {name: p.detach() for name, p in state.target.network.named_parameters()}
    for name, values in saved.items():
        places[name].copy_(values)
        if name in targets:
            targets[name].copy_(values)
