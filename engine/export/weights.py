"""Writes a policy as weights by their names, with a program that has them in plain PyTorch."""

from __future__ import annotations

import runpy
from pathlib import Path

import safetensors.torch
import torch

from engine.export.agreement import Act, Array, Arrays
from engine.export.greedy_policy import GreedyPolicy, to_tensor
from engine.export.model_source import model_source
from engine.trained.load import Trained

MODEL = "model.py"


def write_weights(trained: Trained, policy: GreedyPolicy, path: Path, title: str) -> None:
    """Writes the weights that acting needs to `path`, and `model.py` beside it.

    Args:
        trained: The policy.
        policy: The same, for its inputs and outputs.
        path: The file of weights, whose names are those of the run's network.
        title: First line of the program's description.

    Raises:
        ConfigError: It has parts of the user's own.
    """
    source = model_source(trained, policy.ports, title)
    model = path.with_name(MODEL)
    model.write_text(source.text, encoding="utf-8")
    # The program says itself which tensors it has; it was written here, so it may be run.
    wanted: torch.nn.Module = runpy.run_path(str(model))["Policy"]()
    known = {name: p.detach() for name, p in trained.network.named_parameters()}
    known |= source.constants
    tensors = {name: known[name].contiguous().clone() for name in wanted.state_dict()}
    path.write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))


def load_weights(path: Path, policy: GreedyPolicy) -> Act:
    """Acts with the program beside a file of weights."""
    model = runpy.run_path(str(path.with_name(MODEL)))["load_policy"](str(path))

    def act(given: Arrays) -> dict[str, Array]:
        inputs = {port.name: to_tensor(given[port.name]) for port in policy.ports.inputs}
        with torch.inference_mode():
            outputs = model(inputs)
        return {port.name: outputs[port.name].numpy() for port in policy.ports.outputs}

    return act
