"""Which trackers can be named, and what is said of secrets and missing packages."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec

import pytest

from engine.errors import ConfigError
from tests.helpers.running import run_tianji
from tianji_cli.tracking.hints import masked_text, secrets_of, without_password
from tianji_cli.tracking.tools import TOOLS, check_tools


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Modules that cannot be found; all others can."""
    names: set[str] = set()

    def find(name: str) -> ModuleSpec | None:
        return None if name in names else ModuleSpec(name, None, origin=f"/{name}/__init__.py")

    monkeypatch.setattr(importlib.util, "find_spec", find)
    return names


def test_each_tracker_counts_once_in_the_order_given(missing):
    assert check_tools(["wandb", "tensorboard", "wandb"], "--track") == ("wandb", "tensorboard")
    assert check_tools([], "--track") == ()


@pytest.mark.parametrize("tool", TOOLS)
def test_a_missing_package_is_named_with_the_command_that_installs_it(tool, missing):
    missing.add(tool)
    with pytest.raises(ConfigError, match="not installed") as caught:
        check_tools([tool], "--track")
    assert caught.value.where == f"--track {tool}"
    assert sys.executable in caught.value.fix
    assert "pip install" in caught.value.fix
    assert tool in caught.value.fix


def test_all_missing_packages_are_named(missing):
    missing |= {"mlflow", "alembic"}
    with pytest.raises(ConfigError, match="mlflow-skinny and alembic, which are not installed"):
        check_tools(["mlflow"], "--to")


def test_a_directory_that_a_tool_has_left_is_no_package(missing, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None))
    with pytest.raises(ConfigError, match="wandb"):
        check_tools(["wandb"], "--track")


def test_another_name_is_refused_before_anything_starts(tmp_path):
    done = run_tianji(tmp_path, "up", "--track", "tensorbord")
    assert done.returncode == 2
    assert "there is no tracker 'tensorbord'" in done.stderr
    assert "tensorboard" in done.stderr.partition("fix")[2]
    assert not (tmp_path / "results").exists()


def test_a_run_that_is_left_alone_has_no_trackers(tmp_path):
    done = run_tianji(tmp_path, "up", "--detach", "--track", "tensorboard")
    assert done.returncode == 2
    assert "tianji track --to tensorboard" in done.stderr
    assert not (tmp_path / "results").exists()


def test_keys_and_passwords_are_secrets_and_ordinary_values_are_not():
    env = {
        "WANDB_API_KEY": "abcdef012345",
        "WANDB_PROJECT": "project",
        "MLFLOW_TRACKING_URI": "mysql://me:pass:word@db/x",
        "MLFLOW_TRACKING_PASSWORD": "hunter22",
        "https_proxy": "http://me:proxied@proxy:1",
        "HOME_KEY": "at home",
        "MLFLOW_TRACKING_TOKEN": "",
    }
    assert set(secrets_of(env)) == {"abcdef012345", "pass:word", "hunter22", "proxied"}
    words = "401 of mysql://me:pass:word@db/x with abcdef012345"
    assert masked_text(words, secrets_of(env)) == "401 of mysql://me:***@db/x with ***"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://localhost:5000", "http://localhost:5000"),
        ("https://user:secret@mlflow.example/a", "https://user:***@mlflow.example/a"),
        ("postgresql://db/x?password=secret", "postgresql://db/x"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("/data/mlruns", "/data/mlruns"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str):
    assert without_password(address) == shown
