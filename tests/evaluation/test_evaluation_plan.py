"""Which episodes an evaluation plays, and what its files are named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError
from engine.spec import EnvSpec, EvaluationSpec, Experiment
from tianji_cli.evaluation.evaluate import processes_for
from tianji_cli.evaluation.plan import (
    MAX_SEED,
    EvaluationSettings,
    Wanted,
    check_seed,
    default_seed,
    parse_env_kwargs,
)

WANTED = Wanted(episodes=100, is_sampled=False, max_env_steps=1000, env_kwargs={})


def experiment(evaluation: EvaluationSpec | None = None) -> Experiment:
    env = EnvSpec(id="CartPole-v1")
    return Experiment(name="a", env=env, algorithm={"name": "ppo"}, evaluation=evaluation)


def test_the_first_group_is_an_evaluation_of_the_run():
    settings = WANTED.settings(experiment(EvaluationSpec(episodes=30, seed=5)))
    assert settings.seed == 5
    assert [(group.first, group.count) for group in settings.groups] == [
        (0, 30),
        (30, 30),
        (60, 30),
        (90, 10),
    ]


def test_without_evaluations_groups_and_seed_are_those_that_a_run_would_have():
    settings = WANTED.settings(experiment())
    own = EvaluationSpec()
    assert (settings.group_size, settings.seed) == (own.episodes, own.seed)
    assert default_seed(experiment()) == own.seed


def test_fewer_episodes_than_a_group_are_one_group():
    few = dataclasses.replace(WANTED, episodes=3, seed=0)
    settings = few.settings(experiment())
    assert settings.seed == 0, "zero is a seed"
    assert [group.count for group in settings.groups] == [3]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("episodes", 99),
        ("seed", 1),
        ("group_size", 10),
        ("is_sampled", True),
        ("max_env_steps", 999),
        ("env_kwargs", {"difficulty": 1}),
    ],
)
def test_every_setting_changes_the_name(key: str, value: object):
    settings = WANTED.settings(experiment())
    other = msgspec.structs.replace(settings, **{key: value})
    assert other.name(120) != settings.name(120)


def test_equal_settings_have_equal_names_whatever_the_order_of_arguments():
    one, other = (
        EvaluationSettings(
            episodes=1, seed=0, group_size=1, is_sampled=False, max_env_steps=1, env_kwargs=kwargs
        )
        for kwargs in ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    )
    assert one.name(3) == other.name(3)
    assert one.name(3) != one.name(4)
    assert Path(one.name(3)).name == one.name(3)


@pytest.mark.parametrize("word", ["difficulty", "=1", " =1"])
def test_an_argument_without_key_or_value_is_refused(word: str):
    with pytest.raises(ConfigError, match="KEY=VALUE") as error:
        parse_env_kwargs(["a=1", word])
    assert word in error.value.where


def test_an_argument_is_a_single_value():
    assert parse_env_kwargs(["a=1.5", "b=true", "c=", "d='1'", "e=x=y"]) == {
        "a": 1.5,
        "b": True,
        "c": None,
        "d": "1",
        "e": "x=y",
    }
    with pytest.raises(ConfigError, match="not a list"):
        parse_env_kwargs(["a=[1, 2]"])


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_that_environments_cannot_be_given_is_refused(seed: int):
    with pytest.raises(ConfigError, match=str(MAX_SEED)):
        check_seed(seed)
    check_seed(None)
    check_seed(MAX_SEED)


def test_there_are_as_many_processes_as_cores_and_groups(monkeypatch: pytest.MonkeyPatch):
    module = "tianji_cli.evaluation.evaluate.allowed_cores"
    monkeypatch.setattr(module, lambda: (0, 1, 2, 3))
    assert [processes_for(groups) for groups in (1, 3, 100)] == [1, 3, 4]
    monkeypatch.setattr(module, lambda: ())
    assert processes_for(1) == 1
