"""Labs of real sshd hosts: one of four hosts for all tests that need no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import TianJiError
from tests.helpers.histories import check_histories
from tests.helpers.ssh_kit import REPOSITORY, Bench, other_python
from tianji_cli.lab import Lab


def lab_of(num_hosts: int, directory: Path, *, rate: str = "1gbit") -> Iterator[Lab]:
    """Hosts that do not see the sources, so that nothing works by accident."""
    hide = [REPOSITORY / "engine", REPOSITORY / "tianji_cli"]
    other = other_python()
    share = [other.parent.parent] if other is not None and other.parts[1] != "usr" else []
    try:
        built = Lab.up(hosts=num_hosts, rate=rate, directory=directory, hide=hide, share=share)
    except TianJiError as error:
        pytest.skip(f"no lab here: {error}")
    with built:
        yield built


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Four hosts; a module that needs others has a fixture `lab` of its own."""
    yield from lab_of(4, tmp_path_factory.mktemp("lab") / "lab")


@pytest.fixture
def bench(lab: Lab, tmp_path: Path) -> Iterator[Bench]:
    """The lab, healthy before and after each test; every run must tell a possible history."""
    bench = Bench(lab, tmp_path)
    yield bench
    for command in bench.started:
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait()
    for host in lab.status():
        if host.state == "dead":
            lab.start(host.name)
        elif host.state == "frozen":
            lab.thaw(host.name)
    for host in lab.status():
        if host.is_cut:
            lab.heal(host.name)
    bench.forget_runs()
    check_histories(bench.results)
