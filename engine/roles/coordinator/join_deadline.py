"""The error of a run that did not start: which roles did not join, where, and what is known there.

Pure, like the coordinator that uses it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from engine.messages import COORDINATOR

MOST_NAMES = 8
"""Roles of one host that are named; beyond this only their number."""


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
