"""The roles that have joined, those that sent a final report, and those that never will.

Pure, like the coordinator that uses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from engine.messages import Counters, role_of


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
