"""A Ray of two nodes for all tests that need one; they are skipped where it is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from tests.helpers.cluster_fixtures import for_one_test, started
from tests.helpers.ray_kit import RayKit


@pytest.fixture(scope="session")
def ray_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayKit]:
    """Started once; its hosts are its own."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("no Ray here: pip install --constraint constraints.txt 'ray[default]'")
    yield from started(RayKit, 2, tmp_path_factory.mktemp("ray") / "lab")


@pytest.fixture
def ray_cluster(ray_of_session: RayKit) -> Iterator[RayKit]:
    """Both nodes alive and empty before each test, after which every run tells a possible
    history."""
    yield from for_one_test(ray_of_session)
