"""Exported policies compute in single precision, on any machine."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from engine.algorithms.registry import make_algorithm
from engine.export.agreement import act_of_engine, difference
from engine.export.ports import Ports
from engine.export.recording import Recording
from engine.spec import StalenessSpec
from engine.trained.load import Trained

NEAR = 0.01
"""Of reals in half precision, relative to their range: bfloat16 has three digits."""


def in_single_precision(trained: Trained) -> Trained:
    """The same policy with `network.precision: float32` and the same weights.

    Few runtimes have bfloat16 on processors, and those that do round differently.
    """
    experiment = trained.experiment
    if experiment.network.precision == "float32":
        return trained
    network_spec = msgspec.structs.replace(experiment.network, precision="float32")
    experiment = msgspec.structs.replace(experiment, network=network_spec)
    open_rule = msgspec.structs.replace(experiment, staleness=StalenessSpec(mode="unbounded"))
    algorithm = make_algorithm(open_rule, trained.spaces)
    network = algorithm.network().requires_grad_(False).eval()
    # A trunk in half precision is inside of another module, so names differ, but not their order.
    for ours, theirs in zip(network.parameters(), trained.network.parameters(), strict=True):
        ours.data.copy_(theirs)
    fields = algorithm.samples().fields
    return replace(
        trained, experiment=experiment, algorithm=algorithm, network=network, fields=fields
    )


def share_of_equal_actions(trained: Trained, recording: Recording, ports: Ports) -> float:
    """The share of recorded observations for which a policy acts as was recorded: with the same
    choices, and reals that differ by `NEAR` at most.

    Args:
        trained: That policy, such as the one in half precision.
        recording: Of another one.
        ports: Inputs and outputs of both.
    """
    inputs = {name: v.reshape(-1, *v.shape[2:]) for name, v in recording.inputs.items()}
    chosen = act_of_engine(trained, ports, inputs)
    wrong = [
        difference(port, chosen[port.name], recorded.reshape(-1, *recorded.shape[2:]), NEAR)[0]
        for port in ports.actions
        for recorded in (recording.outputs[port.name],)
    ]
    return float(1.0 - np.any(wrong, axis=0).mean())
