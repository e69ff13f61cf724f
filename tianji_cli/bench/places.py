"""Which hosts a run of a study gets: places that share no host, unless the user asks for more runs
than there are places."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from engine.errors import ConfigError, HostUnreachableError
from engine.wording import is_or_are, plural
from tianji_cli.bench.crew import StopSwitch
from tianji_cli.config.inventory import Host, Inventory

Parallel: TypeAlias = int | Literal["auto"]
"""How many runs at once; `auto`: as many as there are places, so that no host has two."""
MAX_PARALLEL = 256
"""Each is a command of its own on this machine."""
THIS_MACHINE = Host(name="localhost", connection="local", address="127.0.0.1", ports=None)
WAIT_S = 0.5
"""How often a thread that waits for a place looks whether it is to end."""


@dataclass(frozen=True)
class RunPlace:
    """Where a run takes place.

    Attributes:
        hosts: Empty: this machine, as `tianji up` without an inventory.
        is_shared: Whether other runs may be on the same cores meanwhile.
        is_in_lab: Whether its hosts are on one machine with those of all other places.
    """

    hosts: tuple[Host, ...] = ()
    is_shared: bool = False
    is_in_lab: bool = False

    def shares_with(self, other: RunPlace) -> bool:
        """Whether runs at both use the same cores."""
        return self.hosts == other.hosts or (self.is_in_lab and other.is_in_lab)

    @property
    def name(self) -> str:
        return ", ".join(host.name for host in self.hosts) or "this machine"

    @property
    def is_alone_here(self) -> bool:
        """Whether how busy this machine is says something about the run."""
        return not self.is_shared and all(host.connection == "local" for host in self.hosts)

    @property
    def inventory(self) -> tuple[Host, ...]:
        """The hosts of its inventory; empty: it needs none.

        On shared hosts nothing is pinned: two runs that start together would see the same idle
        cores and both pin their processes to them.
        """
        if not self.is_shared:
            return self.hosts
        hosts = self.hosts or (THIS_MACHINE,)
        return tuple(msgspec.structs.replace(host, pin=False) for host in hosts)


def places_of(
    inventory: Inventory | None,
    hosts_per_run: int = 1,
    parallel: Parallel = "auto",
    *,
    is_lab: bool = False,
) -> list[RunPlace]:
    """The places of all runs that go on at once, as many as there are such runs.

    Args:
        inventory: None: this machine is the only host.
        hosts_per_run: Hosts that each run gets, in the order of the inventory.
        parallel: Runs at once. Above the number of places, places are used several times.
        is_lab: Whether the hosts are those of a lab: all on this machine.

    Raises:
        ConfigError: The inventory has fewer hosts than one run needs.
    """
    apart = _apart(inventory, hosts_per_run)
    wanted = len(apart) if parallel == "auto" else parallel
    times = Counter(number % len(apart) for number in range(wanted))
    return [
        RunPlace(
            apart[number], is_shared=times[number] > 1 or (is_lab and wanted > 1), is_in_lab=is_lab
        )
        for number in (number % len(apart) for number in range(wanted))
    ]


def _apart(inventory: Inventory | None, hosts_per_run: int) -> list[tuple[Host, ...]]:
    """Groups of hosts without a common one; hosts that are left over are not used."""
    if inventory is None and hosts_per_run == 1:
        return [()]
    given = () if inventory is None else inventory.hosts
    hosts = tuple({_machine(host): host for host in reversed(given)}.values())[::-1]
    if len(hosts) < hosts_per_run:
        has = "no inventory is given" if inventory is None else f"it has {len(hosts)}"
        raise ConfigError(
            f"{plural(hosts_per_run, 'host')} {is_or_are(hosts_per_run)} needed for each run;"
            f" {has}",
            where="hosts_per_run" if inventory is None else inventory.source,
            fix="--hosts INVENTORY" if inventory is None else "-s hosts_per_run=1",
        )
    starts = range(0, len(hosts) - hosts_per_run + 1, hosts_per_run)
    return [hosts[start : start + hosts_per_run] for start in starts]


def _machine(host: Host) -> tuple[object, ...]:
    """Equal for two names of one machine, as far as an inventory tells."""
    if host.connection == "local":
        return ()
    return (host.connection, host.ssh_host or host.name, host.port, host.jump)


@dataclass
class Stay:
    """A run at its place.

    Attributes:
        place: The place.
        num_beside: The most other runs that were on the same hosts at once meanwhile.
    """

    place: RunPlace
    num_beside: int = 0


class PlacePool:
    """Places that are free, and the runs at the others; threads come and go.

    Args:
        places: From `places_of`.
    """

    def __init__(self, places: Sequence[RunPlace]) -> None:
        self._free = list(places)
        self._stays: list[Stay] = []
        self._changed = threading.Condition()
        self._lost: dict[str, None] = {}

    def take(self, stop: StopSwitch) -> Stay:
        """Waits for a free place.

        Raises:
            HostUnreachableError: All of them are lost.
            KeyboardInterrupt: All runs are to end.
        """
        with self._changed:
            while not self._free:
                if not self._stays:
                    raise HostUnreachableError(
                        "no host is left to run on",
                        where=", ".join(self._lost),
                        fix="see that they can be reached, then continue with --resume",
                    )
                if stop.is_asked:
                    raise KeyboardInterrupt
                self._changed.wait(WAIT_S)
            stay = Stay(self._free.pop(0))
            self._stays.append(stay)
            here = [other for other in self._stays if other.place.shares_with(stay.place)]
            for other in here:
                other.num_beside = max(other.num_beside, len(here) - 1)
            return stay

    def leave(self, stay: Stay) -> None:
        """Its place is free again."""
        with self._changed:
            self._stays.remove(stay)
            if stay.place.name not in self._lost:
                self._free.append(stay.place)
            self._changed.notify_all()

    def lose(self, stay: Stay) -> None:
        """No run can take place there any more."""
        with self._changed:
            self._stays.remove(stay)
            self._free = [place for place in self._free if place.hosts != stay.place.hosts]
            self._lost[stay.place.name] = None
            self._changed.notify_all()
