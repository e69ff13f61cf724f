"""`auto` in an experiment: a number that is chosen later, and only where one can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.config_file import load_experiment, overlaid_experiment, require_numbers
from engine.errors import ConfigError

TEXT = (
    "version: 1\nname: some\nactors: auto\nenv:\n  id: CartPole-v1\n  num_envs: auto\n"
    "algorithm: {name: ppo}\nstop: {seconds: 1}\n"
)


def write(directory: Path, text: str = TEXT) -> Path:
    path = directory / "some.yaml"
    path.write_text(text)
    return path


def test_auto_stands_for_the_default_until_it_is_chosen(tmp_path: Path) -> None:
    experiment, document = load_experiment(write(tmp_path))
    assert document.automatic == {("actors",), ("env", "num_envs")}
    assert (experiment.actors, experiment.env.num_envs) == (2, 8)


def test_a_setting_can_be_auto_and_replaces_it(tmp_path: Path) -> None:
    experiment, document = load_experiment(write(tmp_path), ["env.num_envs=4"])
    assert document.automatic == {("actors",)}
    assert experiment.env.num_envs == 4
    _, again = overlaid_experiment(experiment, "run x", ["env.num_envs=auto"])
    assert again.automatic == {("env", "num_envs")}


@pytest.mark.parametrize("setting", ["actors=automatic", "groups=auto", "env.num_splits=auto"])
def test_other_words_and_other_keys_are_refused(setting: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected `int"):
        load_experiment(write(tmp_path), [setting])


def test_where_no_host_is_known_a_number_is_asked_for(tmp_path: Path) -> None:
    _, document = load_experiment(write(tmp_path), ["env.num_envs=4"])
    with pytest.raises(ConfigError, match="a study needs it") as caught:
        require_numbers(document, "a study needs it")
    assert caught.value.where == f"{document.source}:3: actors"
    assert caught.value.fix == "give a number: -s actors=N"
    _, document = load_experiment(write(tmp_path), ["env.num_envs=4", "actors=1"])
    require_numbers(document, "a study needs it")
