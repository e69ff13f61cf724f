"""The space of a search: which points a grid has, what lies in it, what cannot be searched."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.spec import Scalar
from tianji_cli.bench.search.space import (
    contains,
    corners,
    flaws_of,
    grid_points,
    num_trials,
    seed_of,
)
from tianji_cli.bench.search.spec import CategoricalRange, FloatRange, IntRange, Range, Search
from tianji_cli.bench.study.run import plan_cells
from tianji_cli.bench.study.spec import Study, load_study

RATE = FloatRange(low=1e-4, high=1e-2, log=True)


def search(space: dict[str, Range], **changes: object) -> Search:
    return msgspec.structs.replace(Search(trials=5, space=space), **changes)


def grid(space: dict[str, Range], trials: int | None = None) -> Search:
    return search(space, sampler="grid", trials=trials)


@pytest.mark.parametrize(
    ("bounds", "values"),
    [
        (FloatRange(low=0.0, high=0.3, step=0.1), [0.0, 0.1, 0.2, 0.3]),
        (FloatRange(low=0.0, high=0.35, step=0.1), [0.0, 0.1, 0.2, 0.3]),
        (FloatRange(low=1e-4, high=1e-2, log=True, points=3), [1e-4, 1e-3, 1e-2]),
        (FloatRange(low=-1.0, high=1.0, points=2), [-1.0, 1.0]),
        (IntRange(low=1, high=4), [1, 2, 3, 4]),
        (IntRange(low=1, high=8, step=3), [1, 4, 7]),
        (IntRange(low=1, high=64, log=True, points=4), [1, 4, 16, 64]),
        (IntRange(low=1, high=3, points=9), [1, 2, 3]),
        (CategoricalRange(choices=("tanh", "relu", None)), [None, "relu", "tanh"]),
    ],
)
def test_a_grid_has_every_point_once(bounds: Range, values: list[Scalar]):
    points = [point["key"] for point in grid_points(grid({"key": bounds}))]
    if isinstance(bounds, CategoricalRange):
        assert set(points) == set(values)
    else:
        assert sorted(points) == pytest.approx(values)  # type: ignore[type-var]  # numbers
    assert len(points) == len(values)
    assert all(contains(grid({"key": bounds}), {"key": point}) for point in points)


def test_a_grid_is_the_product_in_an_order_that_can_be_repeated():
    space: dict[str, Range] = {
        "a": IntRange(low=1, high=3),
        "b": CategoricalRange(choices=("x", "y")),
    }
    points = grid_points(grid(space))
    assert points == grid_points(grid(space))
    assert len({tuple(point.values()) for point in points}) == len(points) == 6
    assert num_trials(grid(space)) == 6
    some = grid_points(grid(space, trials=4))
    assert len(some) == 4
    assert all(point in points for point in some)
    other = grid_points(msgspec.structs.replace(grid(space), seed=1))
    assert other != points


def test_some_points_of_a_huge_grid_are_drawn_at_once():
    space: dict[str, Range] = {
        f"k{number}": FloatRange(low=0.0, high=1.0, points=100) for number in range(7)
    }
    assert len(grid_points(grid(space, trials=20))) == 20


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (search({}), "nothing to search"),
        (search({"a": FloatRange(low=1.0, high=1.0)}), "low is not below high"),
        (search({"a": FloatRange(low=0.0, high=1.0, log=True)}), "begins above 0"),
        (search({"a": IntRange(low=0, high=8, log=True)}), "begins above 0"),
        (search({"a": FloatRange(low=0.1, high=1.0, log=True, step=0.1)}), "exclude each other"),
        (search({"a": IntRange(low=1, high=8, log=True, step=2)}), "exclude each other"),
        (search({"a": FloatRange(low=0.0, high=float("inf"))}), "finite"),
        (search({"a": FloatRange(low=float("nan"), high=1.0)}), "finite"),
        (search({"a": FloatRange(low=0.0, high=1.0, points=3)}), "only the sampler grid"),
        (search({"a": CategoricalRange(choices=(1, 2, 1))}), "named twice"),
        (search({"a": RATE}, trials=None), "'trials' is missing"),
        (grid({"a": FloatRange(low=0.0, high=1.0)}), "needs points, or else a step"),
        (grid({"a": FloatRange(low=0.0, high=1.0, points=3, step=0.5)}), "or else a step"),
        (grid({"a": IntRange(low=0, high=10**6)}), "too many for a grid"),
        (grid({"a": IntRange(low=1, high=3)}, trials=4), "only 3 points"),
        (grid({k: IntRange(low=1, high=500) for k in "ab"}), "250,000 points"),
        (grid({f"k{n}": IntRange(low=1, high=999) for n in range(8)}, trials=3), "fewer points"),
    ],
)
def test_what_cannot_be_searched_says_why(found: Search, words: str):
    flaw = next(flaws_of(found))
    assert words in f"{flaw.what} {flaw.fix}"


def test_true_is_not_the_choice_1():
    both = search({"a": CategoricalRange(choices=(1, True))})
    assert list(flaws_of(both)) == []
    only = search({"a": CategoricalRange(choices=(1, "x"))})
    assert contains(only, {"a": 1})
    assert not contains(only, {"a": True})
    assert not contains(only, {"a": 1.0})
    assert not contains(only, {"b": 1})
    assert not contains(search({"a": IntRange(low=1, high=3)}), {"a": 1.5})


def test_corners_use_every_bound_and_every_choice():
    space: dict[str, Range] = {
        "a": RATE,
        "b": CategoricalRange(choices=("x", "y", "z")),
        "c": IntRange(low=1, high=8, step=3),
    }
    found = corners(search(space))
    assert {point["a"] for point in found} == {1e-4, 1e-2}
    assert {point["b"] for point in found} == {"x", "y", "z"}
    assert {point["c"] for point in found} == {1, 7}


@given(st.integers(0, 10**6), st.integers(0, 100))
def test_each_trial_has_a_seed_of_its_own_whoever_asks(seed: int, trial: int):
    one = search({"a": RATE}, seed=seed)
    assert seed_of(one, "t", trial) == seed_of(one, "t", trial) < 2**32
    assert seed_of(one, "t", trial) != seed_of(one, "t", trial + 1)
    assert seed_of(one, "t", trial) != seed_of(one, "u", trial)


def shipped(*settings: str) -> Study:
    return load_study("search", settings)


def test_the_shipped_search_can_be_used():
    study = shipped()
    cells = plan_cells(study)
    assert [cell.name for cell in cells[:2]] == ["cartpole-trial00-seed0", "cartpole-trial01-seed0"]
    assert len(cells) == 12
    assert study.settings_of("cartpole", "trial00", {"algorithm.learning_rate": 0.5})[-1] == (
        "algorithm.learning_rate=0.5"
    )


def test_trials_come_one_after_the_other_each_with_every_seed():
    cells = plan_cells(shipped("seeds=2", "search.trials=2"))
    assert [(cell.variant, cell.seed) for cell in cells] == [
        ("trial0", 0), ("trial0", 1), ("trial1", 0), ("trial1", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("search.trials=0", ["trials", ">= 1"]),
        ("search.sampler=tp", ["search.sampler", "random, tpe"]),
        ("search.objective=return", ["search.objective", "final return"]),
        ("search.space={}", ["search.space", "nothing to search"]),
        ("search.space={seed: {type: int, low: 0, high: 3}}", ["seed belongs to the study"]),
        ("search.space={actors: {type: int, low: 1, high: 3}}", ["set to 1 in the task cartpole"]),
        ("search.space={actors: {type: whole, low: 1, high: 3}}", ["search.space", "whole"]),
        (
            "search.space={algorithm.learnig_rate: {type: float, low: 1e-4, high: 1e-2}}",
            ["learnig_rate", "did you mean 'learning_rate'"],
        ),
        ("search.space={env.num_env: {type: int, low: 1, high: 3}}", ["unknown key 'num_env'"]),
        ("search.space={env.num_envs: {type: int, low: 0, high: 3}}", ["env.num_envs", ">= 1"]),
        ("tasks.cartpole.variants={a: {}}", ["no variants", "leave out search"]),
        ("tasks.cartpole.baseline=a", ["no baseline"]),
        (
            "search={trials: 3, objective: time to threshold, space: {env.num_envs: {type: int,"
            " low: 1, high: 3}}}",
            [],
        ),
    ],
)
def test_what_a_search_must_not_say_is_refused(setting: str, words: list[str]):
    if not words:
        assert shipped(setting).search is not None
        with pytest.raises(ConfigError, match="there is none"):
            shipped(setting, 'tasks.cartpole.settings={"stop.return_threshold": null}')
        return
    with pytest.raises(ConfigError) as caught:
        shipped(setting)
    text = f"{caught.value.where} {caught.value.what} {caught.value.fix}"
    for word in words:
        assert word in text
