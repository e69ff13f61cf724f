"""Checkpoints: complete, verifiable, and never more than wanted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest
import safetensors.torch
import torch

from engine.algorithms.base import LearnerState
from engine.algorithms.ppo import Ppo, PpoConfig
from engine.runtime.checkpoint import SCHEMA_VERSION, CheckpointInfo, save_checkpoint
from engine.spec import NetworkSpec
from engine.testing import discrete_spaces


@pytest.fixture
def state() -> LearnerState:
    state = Ppo(PpoConfig(), NetworkSpec(hidden_sizes=(4,)), discrete_spaces()).init(seed=1)
    state.optimizer.mean.uniform_(generator=state.generator)
    state.optimizer.num_steps.fill_(3.0)
    return state


def save(directory: Path, state: LearnerState, version: int, keep: int = 3) -> Path:
    counters = {"env_steps_consumed": 100 * version}
    return save_checkpoint(directory, state, version=version, counters=counters, keep=keep)


def read_info(path: Path) -> CheckpointInfo:
    return msgspec.json.decode(path.read_bytes(), type=CheckpointInfo)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_every_tensor_comes_back(tmp_path: Path, state: LearnerState):
    tensors = safetensors.torch.load_file(save(tmp_path, state, 2).with_suffix(".safetensors"))
    wanted = {f"network.{name}": p.detach() for name, p in state.network.named_parameters()}
    wanted |= {f"optimizer.{name}": t for name, t in state.optimizer.named_tensors().items()}
    wanted["generator"] = state.generator.get_state()
    assert set(tensors) == set(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(tensors[name], tensor), name


def test_the_random_numbers_go_on_where_they_were(tmp_path: Path, state: LearnerState):
    path = save(tmp_path, state, 2)
    wanted = torch.rand(5, generator=state.generator)
    tensors = safetensors.torch.load_file(path.with_suffix(".safetensors"))
    generator = torch.Generator()
    generator.set_state(tensors["generator"])
    assert torch.equal(torch.rand(5, generator=generator), wanted)


def test_the_description_holds_version_counters_and_the_checksum(
    tmp_path: Path, state: LearnerState
):
    path = save(tmp_path, state, 12)
    info = read_info(path)
    data = path.with_suffix(".safetensors").read_bytes()
    assert info.sha256 == hashlib.sha256(data).hexdigest()
    assert (info.version, info.schema_version) == (12, SCHEMA_VERSION)
    assert info.counters == {"env_steps_consumed": 1200}
    assert path.read_bytes().endswith(b"}\n")


def test_only_the_newest_are_kept_and_nothing_else_is_left(tmp_path: Path, state: LearnerState):
    for version in (1, 2, 9, 10, 11):
        save(tmp_path, state, version, keep=2)
    assert names(tmp_path) == [
        "v0000000010.json",
        "v0000000010.safetensors",
        "v0000000011.json",
        "v0000000011.safetensors",
    ]


def test_saving_a_version_again_replaces_it(tmp_path: Path, state: LearnerState):
    save(tmp_path, state, 1, keep=1)
    with torch.no_grad():
        state.weights.vector.add_(1.0)
    path = save(tmp_path, state, 1, keep=1)
    assert names(tmp_path) == ["v0000000001.json", "v0000000001.safetensors"]
    data = path.with_suffix(".safetensors").read_bytes()
    assert read_info(path).sha256 == hashlib.sha256(data).hexdigest()


def test_a_disk_that_refuses_leaves_earlier_checkpoints_alone(
    tmp_path: Path, state: LearnerState, monkeypatch: pytest.MonkeyPatch
):
    save(tmp_path, state, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, state, 2, keep=1)
    after = {path.name: path.read_bytes() for path in tmp_path.glob("v*")}
    assert after == before


def test_the_description_comes_last(
    tmp_path: Path, state: LearnerState, monkeypatch: pytest.MonkeyPatch
):
    renamed = []
    replace = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda self, to: renamed.append(to.suffix) or replace(self, to)
    )
    save(tmp_path, state, 1)
    assert renamed == [".safetensors", ".json"]
