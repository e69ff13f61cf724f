"""The roles that have joined, those that sent a final report, and those that never will.

Pure, like the coordinator that uses it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet

from engine.messages import COORDINATOR, Counters, role_of

MOST_NAMES = 8
"""Roles of one host that are named in an error; beyond this only their number."""


class Membership:
    """The roles of one run, by address.

    Args:
        addresses: All roles but the coordinator.
    """

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self._hosts: dict[str, str] = {}
        self._missing = set(addresses)
        self._silent: dict[bool, set[str]] = {True: set(), False: set()}
        """Roles without a final report: buffers, and all others."""
        for address in addresses:
            self._silent[_is_buffer(address)].add(address)
        self.last_words: dict[str, Counters] = {}
        """The final counts of each stopped role; `say_last` adds to them."""
        self.gone: set[str] = set()
        """Roles that will never send a final report."""

    @property
    def is_complete(self) -> bool:
        """Whether all have joined."""
        return not self._missing

    @property
    def missing(self) -> list[str]:
        """Those that have not joined."""
        return sorted(self._missing)

    @property
    def living(self) -> set[str]:
        """Those that have joined, are not gone and have not stopped."""
        return set(self._hosts) - self.gone - set(self.last_words)

    def join(self, address: str, host: str) -> None:
        self._hosts[address] = host
        self._missing.discard(address)

    def say_last(self, address: str, counters: Counters) -> None:
        """Records that a role has stopped, with these counts."""
        self.last_words[address] = counters
        self._silent[_is_buffer(address)].discard(address)

    @property
    def joined(self) -> list[str]:
        """Those that have."""
        return sorted(self._hosts)

    def host_of(self, address: str) -> str:
        """The host it joined from; empty if it has not joined."""
        return self._hosts.get(address, "")

    def on_host(self, host: str) -> set[str]:
        """The roles that joined from this host and are not gone."""
        return {address for address, name in self._hosts.items() if name == host} - self.gone

    def give_up(self, addresses: Iterable[str]) -> None:
        """Expects no final report of these."""
        self.gone.update(addresses)

    def have_stopped(self, addresses: Iterable[str]) -> bool:
        """Whether all of these have sent their final report."""
        return all(address in self.last_words for address in addresses)

    def awaited(self, *, buffers: bool, excused: AbstractSet[str]) -> list[str]:
        """Roles whose final report is still missing: all buffers, or all others."""
        return sorted(self._silent[buffers] - self.gone - excused)

    def awaits(self, *, buffers: bool, excused: AbstractSet[str]) -> bool:
        """Whether there are any. Called after each final report, so it stops at the first."""
        silent = self._silent[buffers]
        return any(address not in self.gone and address not in excused for address in silent)

    @property
    def lost_collected(self) -> dict[str, int]:
        """Env steps of actors that died and were replaced or given up, from the buffers' counts."""
        words = self.last_words.values()
        return {source: n for word in words for source, n in word.lost_collected.items()}


def _is_buffer(address: str) -> bool:
    return role_of(address) == "buffer"


def words_of_missing(
    missing: Collection[str],
    unheard: Collection[str],
    joined: Collection[str],
    host_of: Mapping[str, str],
    limit_s: float,
) -> str:
    """The roles that did not join, and for each of their hosts what was received from it.

    Args:
        missing: Roles that have not joined.
        unheard: Supervisors that were never heard.
        joined: All other roles.
        host_of: Host of each of these and of the coordinator; empty if all is one process.
        limit_s: Time limit, in seconds.

    Returns:
        A sentence; below it an indented line for each host.
    """
    absent = _by_host([*missing, *unheard], host_of)
    present = _by_host(joined, host_of)
    silent = {host_of.get(name, "") for name in unheard}
    who = "; ".join(f"{_names(n)} on {host}" if host else _names(n) for host, n in absent.items())
    head = host_of.get(COORDINATOR, "")
    lines = [
        f"\n    {host}: {_heard_from(host, host in silent, present.get(host, []), head)}"
        for host in absent
        if host
    ]
    return f"{who} did not join within {limit_s:.0f} s{''.join(lines)}"


def _heard_from(host: str, is_silent: bool, joined: list[str], head: str) -> str:
    if not is_silent:
        also = f", and {_names(joined)} joined" if joined else ""
        return f"its supervisor was heard{also}, so the network path works"
    if joined:
        return f"{_names(joined)} joined, but its supervisor was not heard"
    way = "" if host == head else f"; a firewall may drop what goes from there to {head}"
    return f"nothing was heard from there{way}"


def _names(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:MOST_NAMES])} and {more} more"


def _by_host(names: Collection[str], host_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Names by host, sorted; those of an unknown host are under an empty name."""
    found: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: (host_of.get(name, ""), name)):
        found.setdefault(host_of.get(name, ""), []).append(name)
    return found
