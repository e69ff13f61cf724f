"""Advice on packages is a command that works as TianJi was installed here."""

from __future__ import annotations

import sys
from importlib import metadata

import pytest

from engine.envs.extras import install_command


class Distribution:
    def __init__(self, text: str | None) -> None:
        self.text = text

    def read_text(self, _name: str) -> str | None:
        return self.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"url": "file:///a%20b", "dir_info": {"editable": true}}', "-e '/a b[atari]'"),
        ('{"url": "file:///src", "dir_info": {}}', "ale-py"),
        ('{"url": "https://x/y.git", "vcs_info": {"vcs": "git"}}', "ale-py"),
        (None, "ale-py"),
        ("no JSON", "ale-py"),
    ],
)
def test_the_command_suits_the_installation(monkeypatch, text: str | None, words: str):
    monkeypatch.setattr(metadata, "distribution", lambda _name: Distribution(text))
    assert install_command("atari", "ale-py") == f"{sys.executable} -m pip install {words}"


def test_where_only_the_sources_are_the_package_is_named(monkeypatch):
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert install_command("box2d", "box2d").endswith("pip install box2d")
