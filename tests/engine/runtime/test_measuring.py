"""The short measurement behind `env.num_envs: auto`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from engine.config.config_file import load_experiment
from engine.errors import ConfigError
from engine.graph.cut import single_cut
from engine.graph.workload import MeasuredWork
from engine.runtime.measuring import measured_work
from tests.helpers.paths import REPOSITORY


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.runtime.measuring.WARM_S", 0.001)
    monkeypatch.setattr("engine.runtime.measuring.COLLECT_S", 0.005)
    monkeypatch.setattr("engine.runtime.measuring.SLOW_S", math.inf)


def measured(name: str, *settings: str, measures: bool = True, seeks: bool = True) -> MeasuredWork:
    path: Path = REPOSITORY / "experiments" / f"{name}.yaml"
    experiment, _ = load_experiment(path, settings)
    cut = single_cut(experiment)
    return measured_work(experiment, cut, seeks_num_envs=seeks, measures=measures)


def test_every_number_that_divides_the_batch_is_measured_and_one_learner() -> None:
    threads = torch.get_num_threads()
    work = measured("cartpole_ppo")
    found = [(size.num_envs, size.rollouts_per_batch) for size in work.sizes]
    assert found == [(1, 8), (2, 4), (4, 2), (8, 1)]
    assert all(size.env_steps_per_s > 0 for size in work.sizes)
    assert work.learnt_per_s > 0
    assert torch.get_num_threads() == threads


def test_a_replay_store_takes_rollouts_of_any_number() -> None:
    settings = ("algorithm.min_replay_size=100", "algorithm.replay_capacity=1000")
    work = measured("cartpole_dqn", *settings)
    assert [size.num_envs for size in work.sizes] == [2**power for power in range(9)]
    assert {size.rollouts_per_batch for size in work.sizes} == {0}
    assert work.learnt_per_s > 0


def test_splits_are_respected_and_nothing_is_measured_if_that_is_not_wanted() -> None:
    work = measured("cartpole_ppo", "env.num_splits=4", measures=False)
    assert [(size.num_envs, size.env_steps_per_s) for size in work.sizes] == [(4, 0.0), (8, 0.0)]
    given = measured("cartpole_ppo", "env.num_envs=2", measures=False, seeks=False)
    assert [(size.num_envs, size.rollouts_per_batch) for size in given.sizes] == [(2, 4)]


def test_slow_environments_are_not_tried_in_ever_larger_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.runtime.measuring.SLOW_S", 0.0)
    assert [size.num_envs for size in measured("cartpole_impala").sizes] == [1]


def test_a_batch_that_no_number_suits_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="not a multiple") as caught:
        measured("cartpole_ppo", "algorithm.rollout_steps=39")
    assert caught.value.where == "algorithm.batch_steps"
