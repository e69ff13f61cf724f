"""What the fixtures of a lab that belongs to a cluster have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from tests.helpers.histories import check_histories
from tests.helpers.lab_fixtures import lab_of
from tests.helpers.lab_kit import RESULTS
from tianji_cli.lab import Lab


class Cluster(Protocol):
    """Daemons on the hosts of a lab."""

    @property
    def first(self) -> str:
        """The host on which users log in."""
        ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def forget(self) -> None:
        """Removes what a test has left."""
        ...

    def seen_from_here(self, host: str, path: str) -> Path: ...


AnyCluster = TypeVar("AnyCluster", bound=Cluster)


def started(
    make: Callable[[Lab], AnyCluster], num_hosts: int, directory: Path
) -> Iterator[AnyCluster]:
    """A cluster on hosts of its own."""
    for lab in lab_of(num_hosts, directory):
        cluster = make(lab)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def for_one_test(cluster: AnyCluster) -> Iterator[AnyCluster]:
    """Empty afterwards; every run must tell a possible history."""
    yield cluster
    check_histories(cluster.seen_from_here(cluster.first, RESULTS))
    cluster.forget()
