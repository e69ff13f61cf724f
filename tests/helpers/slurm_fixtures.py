"""A Slurm of four nodes for all tests that need one; they are skipped where it is not installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.helpers.cluster_fixtures import for_one_test, started
from tests.helpers.slurm_kit import SlurmKit

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch")


@pytest.fixture(scope="session")
def slurm_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmKit]:
    """Started once; its hosts are its own."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    if missing := [name for name in PROGRAMS if shutil.which(name, path=path) is None]:
        pytest.skip(f"no Slurm here: {', '.join(missing)} not installed")
    yield from started(SlurmKit, 4, tmp_path_factory.mktemp("slurm") / "lab")


@pytest.fixture
def slurm(slurm_of_session: SlurmKit) -> Iterator[SlurmKit]:
    """All nodes idle and empty before each test, after which every run tells a possible history."""
    yield from for_one_test(slurm_of_session)
