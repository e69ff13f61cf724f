"""The layers of `model.py` do what those of the engine do."""

from __future__ import annotations

import runpy
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from engine.algorithms.networks import PolicyValueNetwork
from engine.envs.actions.squash import TensorSquash
from engine.envs.actions.structure import ActionStructure
from engine.envs.actions.tensors import TensorActions
from engine.errors import ConfigError
from engine.export import plain_layers as plain
from engine.export.model_source import ModelSource, _converter, _Writer, call, model_source, quoted
from engine.export.ports import ports_of
from engine.layers.trunks import TRUNKS, register_network
from engine.spaces.action_parts import leaf_columns, parts_of
from engine.spaces.leaves import leaf_values
from engine.spec import EnvSpec, NetworkSpec
from engine.trained.load import Trained
from tests.helpers.engine.any_space import any_space
from tests.helpers.engine.exports import exported, lively
from tests.helpers.engine.trained_runs import experiment_of, spaces_experiment

CPU = torch.device("cpu")


def flat_actions(space: gymnasium.Space, data: st.DataObject, num_rows: int = 3) -> np.ndarray:
    """Actions as a policy chooses them."""
    parts = parts_of(space)
    columns = [
        data.draw(hnp.arrays(np.int64, num_rows, elements=st.integers(0, n - 1)))
        for n in parts.nvec
    ]
    reals = st.floats(-1e6, 1e6, width=32) | st.floats(-1.5, 1.5, width=32)
    columns += [
        data.draw(hnp.arrays(np.float32, num_rows, elements=reals)) for _ in range(parts.num_reals)
    ]
    dtype = np.float32 if parts.num_reals else np.int64
    return np.stack([column.astype(dtype) for column in columns], axis=1)


@settings(deadline=None, max_examples=50)
@given(any_space(), st.sampled_from(["scaled", "squashed", "in own units"]), st.data())
def test_actions_are_converted_alike(space: gymnasium.Space, how: str, data: st.DataObject) -> None:
    flat = flat_actions(space, data)
    is_bounded = [
        isinstance(leaf, gymnasium.spaces.Box)
        and bool((leaf.bounded_below & leaf.bounded_above).any())
        for leaf, _ in leaf_columns(space)
    ]
    squashes, scales = how == "squashed" and any(is_bounded), how != "in own units"
    env = EnvSpec(id="", squash_actions=squashes, scale_actions=scales)
    squashed = TensorSquash(space, CPU)(torch.from_numpy(flat)).numpy() if squashes else flat
    expected = ActionStructure(space, scales).leaves(squashed)
    of_tensors = leaf_values(space, TensorActions(space, CPU, scales)(torch.from_numpy(squashed)))
    writer, num_choices = _Writer(), len(parts_of(space).nvec)
    for number, (leaf, columns) in enumerate(leaf_columns(space)):
        made = _converter(writer, leaf, f"actions.{number}", env)
        layer: nn.Module = eval(made, {**vars(plain), "torch": torch})
        prefix = f"actions.{number}."
        layer.load_state_dict(
            {n.removeprefix(prefix): v for n, v in writer.constants.items() if n.startswith(prefix)}
        )
        given_rows = torch.from_numpy(flat)[:, columns]
        if columns.start < num_choices:
            given_rows = given_rows.to(torch.int64)
        values = layer(given_rows).numpy()
        assert values.dtype == expected[number].dtype
        np.testing.assert_allclose(
            values.astype(np.float64), expected[number].astype(np.float64), rtol=2e-6, atol=1e-5
        )
        np.testing.assert_array_equal(of_tensors[number].numpy(), expected[number])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans(), st.data())
def test_the_best_choice_is_valid(nvec: list[int], is_masked: bool, data: st.DataObject) -> None:
    scores = data.draw(hnp.arrays(np.float32, (4, sum(nvec)), elements=st.floats(-9, 9, width=32)))
    mask = data.draw(hnp.arrays(bool, scores.shape)) if is_masked else np.ones(scores.shape, bool)
    given_mask = torch.from_numpy(mask) if is_masked else None
    choices = plain.best_choices(torch.from_numpy(scores), nvec, given_mask).numpy()
    first = 0
    for entry, n in enumerate(nvec):
        of_entry, valid = scores[:, first : first + n], mask[:, first : first + n]
        expected = np.where(valid, of_entry, -np.inf).argmax(axis=1)
        np.testing.assert_array_equal(choices[:, entry], expected)
        first += n


def source_of(trained: Trained) -> ModelSource:
    return model_source(trained, ports_of(trained), "Title")


def test_a_program_has_only_what_its_network_needs(tmp_path: Path) -> None:
    trained = lively(tmp_path, experiment_of("id: CartPole-v1"))
    text = source_of(trained).text
    classes = [line for line in text.splitlines() if line.startswith(("class ", "def "))]
    assert [line.partition("(")[0] for line in classes] == [
        *("class Scaled", "def best_choices", "class ChosenValues", "class Flat"),
        *("class Policy", "def load_policy"),
    ]
    assert "self.policy_trunk = nn.Sequential(Flat(), nn.Linear(4, 8), nn.Tanh())" in text
    assert "engine" not in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("action", ["discrete", "dict (hybrid)"])
def test_weights_have_the_names_of_the_run(action: str, tmp_path: Path) -> None:
    import safetensors.torch

    trained = lively(tmp_path, spaces_experiment("dict", action, "info", "lstm"))
    exported(tmp_path, trained, "safetensors")
    saved = safetensors.torch.load_file(tmp_path / "safetensors" / "policy.safetensors")
    own = dict(trained.network.named_parameters())
    names = {name for name in saved if not name.startswith("actions.")}
    assert {"core.weight_state", "policy_head.weight"} < names <= set(own)
    for name in names:
        torch.testing.assert_close(saved[name], own[name], rtol=0, atol=0)


def plain_trunk(shape: tuple[int, ...], spec: NetworkSpec) -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU("tanh"), nn.PReLU()]
    return nn.Sequential(*layers, nn.Linear(6, 5, bias=False))


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.inner(x)


def own_trunk(shape: tuple[int, ...], spec: NetworkSpec) -> nn.Module:
    return nn.Sequential(Doubled(), nn.ReLU())


@pytest.fixture
def _own_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.layers.trunks.TRUNKS", dict(TRUNKS))
    monkeypatch.setattr("engine.layers.encoders.TRUNKS", dict(TRUNKS))
    from engine.layers import trunks

    register_network("plain", plain_trunk)
    register_network("own", own_trunk)
    assert "own" in trunks.TRUNKS


@pytest.mark.usefixtures("_own_networks")
def test_a_network_of_the_user_in_layers_of_pytorch(tmp_path: Path) -> None:
    trained = lively(tmp_path, experiment_of("id: CartPole-v1", network="name: plain"))
    for name in ("safetensors", "torchscript"):
        assert exported(tmp_path, trained, name).agreement.sensitive == 0
    assert "nn.GELU(approximate='tanh')" in source_of(trained).text


@pytest.mark.usefixtures("_own_networks")
def test_layers_of_the_user_are_refused_by_name(tmp_path: Path) -> None:
    trained = lively(tmp_path, experiment_of("id: CartPole-v1", network="name: own"))
    with pytest.raises(
        ConfigError, match=r"layer policy_trunk\.0 is Doubled of .*plain_layers"
    ) as no:
        source_of(trained)
    assert "torchscript" in no.value.fix
    assert exported(tmp_path, trained, "torchscript").agreement.observations == 256


def test_acting_of_the_user_is_refused_by_name(tmp_path: Path) -> None:
    trained = lively(tmp_path, experiment_of("id: CartPole-v1"))

    class Contrary(type(trained.algorithm)):  # type: ignore[misc]
        def act_greedily(self, network: nn.Module, inputs: object) -> torch.Tensor:
            assert isinstance(network, PolicyValueNetwork)
            return network.distribution(inputs).mode()  # type: ignore[arg-type]

    trained.algorithm.__class__ = Contrary
    with pytest.raises(ConfigError, match="algorithm ppo is Contrary"):
        source_of(trained)


def test_a_title_ends_no_docstring(tmp_path: Path) -> None:
    trained = lively(tmp_path, experiment_of("id: CartPole-v1"))
    hostile = 'run """; raise SystemExit  \\" \n"""\nraise SystemExit #'
    path = tmp_path / "model.py"
    path.write_text(model_source(trained, ports_of(trained), hostile).text)
    assert "Policy" in runpy.run_path(str(path))


@pytest.mark.parametrize("words", ["a", 'a"b', "a'b", "a'\"b", "ä\n\\", "\U0001f600"])
def test_words_are_quoted(words: str) -> None:
    assert eval(quoted(words)) == words


def test_long_calls_are_broken() -> None:
    long = call("f", ["a" * 50, call("g", ["b" * 50], "[]")])
    assert long.splitlines() == ["f(", f"    {'a' * 50},", f"    g[{'b' * 50}],", ")"]
