"""Slurm's commands, as programs on PATH that note what they are asked."""

from __future__ import annotations

import pytest

from tests.helpers.fake_slurm import FakeSlurm


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path_factory.mktemp("slurm"))
    monkeypatch.setenv("PATH", fake.install())
    return fake
