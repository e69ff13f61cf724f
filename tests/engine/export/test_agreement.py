"""An export that does not act as the engine does is refused; one that differs in the last digits is
not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.envs.actions.structure import ActionStructure
from engine.errors import RunFailedError
from engine.export.agreement import (
    TOLERANCE,
    Act,
    Arrays,
    act_of_engine,
    check_agreement,
    difference,
)
from engine.export.greedy_policy import GreedyPolicy, to_tensor
from engine.export.ports import Port, action_ports, ports_of
from engine.export.recording import Recording, record
from engine.trained.load import Trained
from tests.helpers.engine.any_space import any_box
from tests.helpers.engine.exports import lively
from tests.helpers.engine.trained_runs import spaces_experiment

FLOAT32 = np.dtype(np.float32)


def acting(trained: Trained) -> Act:
    """The policy as it is."""
    policy = GreedyPolicy(trained)

    def act(given_arrays: Arrays) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            outputs = policy(*(to_tensor(given_arrays[port.name]) for port in policy.ports.inputs))
        named = zip(policy.ports.outputs, outputs, strict=True)
        return {port.name: values.numpy().copy() for port, values in named}

    return act


@pytest.fixture
def remembering(tmp_path: Path) -> tuple[Trained, Recording]:
    trained = lively(tmp_path, spaces_experiment("nested", "dict (hybrid)", "info", "gru"))
    return trained, record(trained, num_envs=2, num_steps=20)


def test_the_engine_agrees_with_itself(remembering: tuple[Trained, Recording]) -> None:
    trained, recording = remembering
    agreement = check_agreement(acting(trained), recording, trained, ports_of(trained))
    assert (agreement.observations, agreement.steps, agreement.environments) == (40, 20, 2)
    assert agreement.largest_difference < 1e-6
    assert agreement.sensitive == 0
    assert recording.starts[0].all()
    assert recording.starts[1:].any()


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("action.kind", lambda v: v % 3 + 1, "action.kind is"),
        ("action.force", lambda v: v + 3e-5 * FLOAT32.type(1), "action.force is"),
        ("next_state", lambda v: v + 3e-5 * FLOAT32.type(1), "next_state is"),
        ("action.force", lambda v: v.astype(np.float64), "float64"),
        ("action.force", lambda v: v[:, :1], "shape|\\(2, 1\\)"),
        ("action.force", lambda v: v * FLOAT32.type(np.nan), "nan"),
        ("next_state", lambda v: v * 0, "next_state is"),
    ],
)
def test_another_output_is_refused(
    name: str, change: object, what: str, remembering: tuple[Trained, Recording]
) -> None:
    trained, recording = remembering
    act = acting(trained)

    def wrong(given_arrays: Arrays) -> dict[str, np.ndarray]:
        outputs = act(given_arrays)
        return {**outputs, name: change(outputs[name])}  # type: ignore[operator]

    with pytest.raises(RunFailedError, match=what):
        check_agreement(wrong, recording, trained, ports_of(trained))


def test_one_wrong_row_of_one_size_of_batch_is_enough(
    remembering: tuple[Trained, Recording],
) -> None:
    trained, recording = remembering
    act = acting(trained)
    for size in (1, 2, 40):

        def wrong(given_arrays: Arrays, size: int = size) -> dict[str, np.ndarray]:
            outputs = act(given_arrays)
            if len(outputs["action.kind"]) == size:
                outputs["action.kind"][-1] = outputs["action.kind"][-1] % 3 + 1
            return outputs

        with pytest.raises(RunFailedError, match=r"action\.kind is"):
            check_agreement(wrong, recording, trained, ports_of(trained))


def test_a_memory_that_is_not_used_is_noticed(remembering: tuple[Trained, Recording]) -> None:
    trained, recording = remembering
    act = acting(trained)

    def forgetful(given_arrays: Arrays) -> dict[str, np.ndarray]:
        state = given_arrays["state"]
        return act({**given_arrays, "state": np.zeros_like(state)})

    with pytest.raises(RunFailedError, match="next_state"):
        check_agreement(forgetful, recording, trained, ports_of(trained))


def test_equally_good_choices_are_ties_and_no_others(tmp_path: Path) -> None:
    trained = lively(tmp_path, spaces_experiment())
    head = trained.network.policy_head
    assert isinstance(head, torch.nn.Linear)
    head.weight.data[1], head.bias.data[1] = head.weight.data[0], head.bias.data[0]
    head.bias.data[2] -= 100.0
    ports = ports_of(trained)
    recording = record(trained, num_envs=2, num_steps=6)
    assert (recording.outputs["action"] == 0).all()
    act = acting(trained)

    def last_choice(given_arrays: Arrays) -> dict[str, np.ndarray]:
        return {"action": act(given_arrays)["action"] + 1}

    def worst_choice(given_arrays: Arrays) -> dict[str, np.ndarray]:
        return {"action": act(given_arrays)["action"] + 2}

    assert check_agreement(last_choice, recording, trained, ports).sensitive == 12
    with pytest.raises(RunFailedError, match="action is 2, not 0"):
        check_agreement(worst_choice, recording, trained, ports)


def test_a_policy_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    trained = lively(tmp_path, spaces_experiment(action="box"))
    for parameter in trained.network.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(RunFailedError, match="not finite"):
        record(trained, num_envs=2, num_steps=2)


@settings(deadline=None, max_examples=50)
@given(any_box(), st.data())
def test_values_may_differ_by_the_tolerance_and_not_by_more(
    space: spaces.Box, data: st.DataObject
) -> None:
    (port,) = action_ports(space)
    units = data.draw(hnp.arrays(np.float32, (3, int(np.prod(space.shape, dtype=int)))))
    units = np.nan_to_num(units.clip(-2, 2))
    (expected,) = ActionStructure(space).leaves(units)
    differs, largest = difference(port, expected, expected)
    assert not differs.any()
    assert largest == 0.0
    if space.dtype.kind != "f" or space.dtype == np.float16:
        return
    bounds = [np.where(np.isfinite(one), np.abs(one), 1.0) for one in (space.low, space.high)]
    size = np.maximum(1.0, np.maximum(np.abs(expected), np.maximum(*bounds)))
    for factor, is_allowed in ((0.5, True), (3.0, False)):
        moved = (expected + factor * TOLERANCE * size).astype(space.dtype)
        assert difference(port, moved, expected)[0].all() == (not is_allowed)


def test_choices_of_whole_numbers_must_be_equal() -> None:
    port = Port("action", "action", "int64", (), (), spaces.Discrete(3))
    differs, _ = difference(port, np.array([0, 1, 2]), np.array([0, 2, 2]))
    assert differs.tolist() == [False, True, False]


def test_actions_are_those_that_the_environment_was_given(tmp_path: Path) -> None:
    """The environment refuses others, and the recording holds what acting again gives."""
    trained = lively(tmp_path, spaces_experiment("dict", "nested (hybrid)", "observation"))
    recording = record(trained, num_envs=3, num_steps=10)
    flat = {name: v.reshape(-1, *v.shape[2:]) for name, v in recording.inputs.items()}
    again = act_of_engine(trained, ports_of(trained), flat)
    for name, values in again.items():
        recorded = recording.outputs[name].reshape(values.shape)
        np.testing.assert_allclose(values, recorded, rtol=1e-5, atol=1e-5)
