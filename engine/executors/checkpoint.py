"""Saves and restores a learner's state exactly. The files: `engine.trace.checkpoint_file`.

Nothing in a checkpoint is ever executed. No memory is allocated for a file before its size, and the
name, dtype and shape of every tensor in it, were compared with those of the current state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import msgspec
import safetensors
import safetensors.torch
import torch

from engine.algorithms.base import LearnerState
from engine.blueprint import Blueprint
from engine.errors import ConfigError, RunFailedError
from engine.executors.soundness import first_strange
from engine.files import write_durably
from engine.progress import MeanReturn, RunCounters
from engine.spec import AUTO
from engine.trace.checkpoint_file import (
    CheckpointInfo,
    Setting,
    identity_of,
    identity_sha256,
    open_regular,
    read_info,
    tidy,
    verify,
)
from engine.trace.tensor_file import MAX_HEADER_BYTES, PREFIX, read_header, refuse_strange
from engine.trace.warm_start import NETWORK_PREFIX

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save_checkpoint(
    directory: Path,
    state: LearnerState,
    blueprint: Blueprint,
    *,
    version: int,
    counters: RunCounters,
    resumes: int = 0,
    known_return: MeanReturn | None = None,
) -> Path:
    """Writes a checkpoint, then removes all but the newest `checkpoint.keep` and the best
    `checkpoint.keep_best`.

    Returns:
        The JSON file's path.

    Raises:
        OSError: The disk is full or not writable; earlier checkpoints are untouched.
        RunFailedError: A value in the state is not finite; earlier checkpoints are untouched.
    """
    tensors = _tensors(state)
    if (strange := first_strange(tensors)) is not None:
        raise RunFailedError(
            f"version {version}: {strange} is not finite, so no checkpoint was written",
            where=str(directory),
            fix="lower algorithm.learning_rate or max_gradient_norm; earlier checkpoints there are"
            " valid",
        )
    data = safetensors.torch.save(tensors)
    identity = identity_of(blueprint.experiment)
    info = CheckpointInfo(
        version=version,
        updates=state.num_updates,
        counters=counters,
        resumes=resumes,
        return_mean=known_return.mean if known_return else None,
        return_judge=known_return.judge if known_return else None,
        return_version=known_return.version if known_return else None,
        identity=identity,
        identity_sha256=identity_sha256(identity),
        buffer=_buffer_policy(blueprint),
        num_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / info.name
    write_durably(directory / info.tensors_name, data)
    write_durably(path, msgspec.json.format(msgspec.json.encode(info.sealed())) + b"\n")
    spec = blueprint.experiment.checkpoint
    tidy(directory, spec.keep, spec.keep_best)
    return path


def load_checkpoint(path: Path, state: LearnerState) -> CheckpointInfo:
    """Overwrites a learner's state with that of a checkpoint.

    Args:
        path: Its JSON file.
        state: As `Algorithm.init` has made it, for the same algorithm, network and environment.

    Raises:
        ConfigError: The files are damaged or forged, or were written for another state.
    """
    info = read_info(path)
    file = path.with_name(info.tensors_name)
    wanted = _tensors(state)
    num_bytes = sum(tensor.nbytes for tensor in wanted.values())
    if not num_bytes < info.num_bytes <= num_bytes + PREFIX.size + MAX_HEADER_BYTES:
        raise ConfigError(
            f"{info.num_bytes} bytes cannot hold the {num_bytes} of this network and optimiser",
            where=str(file),
            fix="it belongs to another network, algorithm or environment",
        )
    saved = read_tensors(file, info.num_bytes, info.sha256, wanted)
    for name, tensor in _places(state).items():
        tensor.copy_(saved[name])
    try:
        state.generator.set_state(saved["generator"])
    except RuntimeError as error:
        raise ConfigError(
            f"not the state of a random generator: {error}", where=str(file)
        ) from error
    state.num_updates = info.updates
    return info


def read_network(path: Path) -> dict[str, torch.Tensor]:
    """The parameters in a checkpoint, without all that only training needs.

    Args:
        path: Its JSON file.

    Returns:
        Float32 tensors by their names in the network.

    Raises:
        ConfigError: The files are damaged.
    """
    file = path.with_name(verify(path).tensors_name)
    try:
        with safetensors.safe_open(file, "pt") as opened:
            names = [name for name in opened.keys() if name.startswith(NETWORK_PREFIX)]  # noqa: SIM118
            return {name.removeprefix(NETWORK_PREFIX): opened.get_tensor(name) for name in names}
    except (safetensors.SafetensorError, OSError) as error:
        raise ConfigError(f"not a file of tensors: {error}", where=str(file)) from error


def load_network(path: Path, network: torch.nn.Module) -> None:
    """Overwrites the parameters of a network with those in a checkpoint.

    Args:
        path: Its JSON file.
        network: Of the same algorithm, settings and environment.

    Raises:
        ConfigError: The files are damaged, or were written for another network.
    """
    saved, wanted = read_network(path), dict(network.named_parameters())
    if strange := sorted(set(saved) ^ set(wanted)):
        kind = "unknown" if strange[0] in saved else "missing"
        raise ConfigError(f"the parameter {strange[0]!r} is {kind}", where=str(path))
    for name, parameter in wanted.items():
        if saved[name].shape != parameter.shape or saved[name].dtype != parameter.dtype:
            raise ConfigError(
                f"the parameter {name!r} is {saved[name].dtype} {tuple(saved[name].shape)}, not"
                f" {parameter.dtype} {tuple(parameter.shape)}",
                where=str(path),
                fix="it belongs to another network, algorithm or environment",
            )
        parameter.data.copy_(saved[name])


def read_tensors(
    file: Path, num_bytes: int, sha256: str, wanted: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file.

    Args:
        file: The file.
        num_bytes, sha256: Of it.
        wanted: It must contain exactly these, with their types and shapes.

    Raises:
        ConfigError: It is damaged or forged, or its tensors are others.
    """
    with open_regular(file, num_bytes) as opened:
        data = opened.read(num_bytes)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ConfigError("the checksum of its tensors does not match", where=str(file))
    _check_header(file, data, wanted)
    refuse_strange(BytesIO(data), len(data), file)
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise ConfigError(f"not a file of tensors: {error}", where=str(file)) from error


def _check_header(file: Path, data: bytes, wanted: Mapping[str, torch.Tensor]) -> None:
    """Raises ConfigError unless the header lists exactly the wanted tensors."""
    header = read_header(data[: PREFIX.size], data[PREFIX.size :], len(data), file)
    if strange := sorted(set(header) ^ set(wanted)):
        kind = "unknown" if strange[0] in header else "missing"
        raise ConfigError(f"the tensor {strange[0]!r} is {kind}", where=str(file))
    for name, tensor in wanted.items():
        found = (header[name].dtype, tuple(header[name].shape))
        expected = (_DTYPES[tensor.dtype], tuple(tensor.shape))
        if found != expected:
            problem = (
                f"the tensor {name!r} is {found[0]} {found[1]}, not {expected[0]} {expected[1]}"
            )
            raise ConfigError(problem, where=str(file))


def _places(state: LearnerState) -> dict[str, torch.Tensor]:
    """The tensors of a state, by their names in a checkpoint; writing to them changes the state."""
    tensors = {
        f"{NETWORK_PREFIX}{name}": p.detach() for name, p in state.network.named_parameters()
    }
    for name, tensor in state.optimizer.named_tensors().items():
        tensors[f"optimizer.{name}"] = tensor
    if state.target is not None:
        for name, parameter in state.target.network.named_parameters():
            tensors[f"target.{name}"] = parameter.detach()
    return tensors


def _tensors(state: LearnerState) -> dict[str, torch.Tensor]:
    """Copies of all tensors, with the state of the random generator."""
    tensors = {"generator": state.generator.get_state(), **_places(state)}
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def _buffer_policy(blueprint: Blueprint) -> dict[str, Setting]:
    """Kind and settings of the buffer between actors and learner."""
    request, staleness = blueprint.replay, blueprint.experiment.staleness
    if request is None:
        return {
            "kind": "queue",
            "mode": staleness.mode,
            "max_lag": AUTO if staleness.is_adaptive else staleness.bound,
            "rollouts_per_batch": blueprint.rollouts_per_batch,
        }
    return {
        "kind": "replay",
        "capacity": request.capacity,
        "min_size": request.min_size,
        "replay_ratio": request.replay_ratio,
        "priority_exponent": request.priority_exponent,
    }
