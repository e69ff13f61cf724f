"""Spaces are taken apart in Gymnasium's order, and what has no fixed size is refused by name."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.spaces.action_parts import ActionParts, action_field, parts_of
from engine.spaces.leaves import leaf_names, leaf_values, leaves_of, structure_of
from tests.helpers.engine.any_space import any_space

NESTED = Dict(
    {
        "b": Tuple((Discrete(3, start=2), Box(-1, 1, (2, 2)))),
        "a": Dict({"x.y": MultiBinary((2, 2)), "x%2Ey": MultiDiscrete([[2, 3], [4, 5]])}),
    }
)


class Unknown(gymnasium.Space):
    pass


def test_leaves_have_gymnasium_s_order_and_distinct_names():
    leaves = leaves_of(NESTED, "observation")
    assert leaf_names(leaves, "observation") == (
        "observation.a.x%252Ey",
        "observation.a.x%2Ey",
        "observation.b.0",
        "observation.b.1",
    )
    assert [type(leaf.space) for leaf in leaves] == [MultiDiscrete, MultiBinary, Discrete, Box]


def test_a_lone_array_has_the_plain_name():
    assert leaf_names(leaves_of(Discrete(2), "action"), "action") == ("action",)


def test_a_dict_of_one_keeps_its_key():
    leaves = leaves_of(Dict(camera=Box(0, 1, (3,))), "observation")
    assert leaf_names(leaves, "observation") == ("observation.camera",)


@given(any_space())
def test_values_of_leaves_can_be_put_together_again(space: gymnasium.Space):
    value = space.sample()
    leaves, values = leaves_of(space, "action"), leaf_values(space, value)
    assert len(leaves) == len(values)
    for leaf, one in zip(leaves, values, strict=True):
        assert leaf.space.contains(np.asarray(one))
    again = structure_of(space, iter(values))
    assert all(a is b for a, b in zip(leaf_values(space, again), values, strict=True))


@given(any_space(), st.integers(1, 3))
def test_the_order_is_that_of_batched_values_too(space: gymnasium.Space, count: int):
    batched = gymnasium.vector.utils.batch_space(space, count)
    values = leaf_values(space, batched.sample())
    for leaf, value in zip(leaves_of(space, "action"), values, strict=True):
        assert value.shape == (count, *(leaf.space.shape or ()))


@pytest.mark.parametrize("what", ["observation", "action"])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("space", "kind", "help_"),
    [
        (spaces.Text(3), "Text", "MultiDiscrete"),
        (spaces.Graph(Box(0, 1, (2,)), Discrete(2)), "Graph", "padded"),
        (spaces.Sequence(Discrete(2)), "Sequence", "padded"),
        (spaces.OneOf([Discrete(2), Box(0, 1)]), "OneOf", "Dict of all alternatives"),
        (Unknown(), "Unknown", "Box, Discrete, MultiDiscrete or MultiBinary"),
        (Dict(), "Dict", "Box"),
        (Tuple(()), "Tuple", "Box"),
        (Box(0, 1, (0, 3)), "Box", "Box"),
        (MultiDiscrete(np.zeros(0, np.int64)), "MultiDiscrete", "Box"),
    ],
)
def test_what_has_no_fixed_size_is_refused(space, kind: str, help_: str, deep: bool, what: str):
    whole = Dict(good=Discrete(2), outer=Tuple((Discrete(2), space))) if deep else space
    with pytest.raises(ConfigError) as caught:
        leaves_of(whole, what)
    assert f"is a {kind} that" in caught.value.what
    assert ("'outer.1'" in caught.value.what) == deep
    assert f"the {what} space" in caught.value.what
    assert caught.value.where == "env.id"
    assert help_ in caught.value.fix


def test_keys_that_are_equal_as_text_are_refused():
    with pytest.raises(ConfigError, match="2 parts with the name '1'"):
        leaves_of(Dict({1: Discrete(2), "1": Discrete(3)}), "observation")


@pytest.mark.parametrize(
    ("space", "parts", "dtype", "shape"),
    [
        (Discrete(4, start=7), ActionParts((4,), 0, is_scalar=True), "int64", ()),
        (MultiDiscrete([4]), ActionParts((4,), 0), "int64", (1,)),
        (MultiDiscrete([[2, 3], [4, 5]]), ActionParts((2, 3, 4, 5), 0), "int64", (4,)),
        (MultiBinary((2, 2)), ActionParts((2, 2, 2, 2), 0), "int64", (4,)),
        (Box(-1, 1, (2, 3)), ActionParts((), 6), "float32", (6,)),
        (Box(-1, 1, ()), ActionParts((), 1), "float32", (1,)),
        (Box(0, 9, (2,), np.int32), ActionParts((), 2), "float32", (2,)),
        (Tuple((Discrete(4),)), ActionParts((4,), 0), "int64", (1,)),
        (NESTED, ActionParts((2, 3, 4, 5, 2, 2, 2, 2, 3), 4), "float32", (13,)),
    ],
)
def test_the_entries_of_action_spaces(space, parts: ActionParts, dtype: str, shape: tuple):
    assert parts_of(space) == parts
    field = action_field(space)
    assert (field.name, field.dtype, field.shape) == ("action", dtype, shape)
    assert parts.num_outputs == sum(parts.nvec) + parts.num_reals


def test_choices_beside_reals_must_be_exact_in_float32():
    assert parts_of(Tuple((Discrete(2**24), Box(0, 1)))).num_reals == 1
    assert parts_of(Discrete(2**24 + 1)).nvec == (2**24 + 1,)
    with pytest.raises(ConfigError, match="16,777,217"):
        parts_of(Tuple((Discrete(2**24 + 1), Box(0, 1))))
