"""Conditions for resuming a benchmark: the same machine, the same code and the same systems."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

import engine
from engine.errors import ConfigError
from tianji_cli.analysis.run import ManifestView
from tianji_cli.bench.machine import Machine
from tianji_cli.git_state import GitState, git_state
from tianji_cli.provisioning.bundle import OPTIONAL

Versions = Mapping[str, Mapping[str, str]]
"""By system or host, those of its packages."""
ANEW = "or start a new one with another --name"


def code_state() -> GitState:
    """Of the code that is running."""
    return git_state(Path(__file__).resolve().parents[2])


def code_name(state: GitState) -> str:
    """For people."""
    return f"commit {state.commit[:12]}" if state.commit else "a TianJi outside a checkout"


def check_machine(earlier: Machine, here: Machine, where: str) -> None:
    """Refuses to mix machines.

    Raises:
        ConfigError: They are not the same.
    """
    if earlier.id != here.id:
        raise ConfigError(
            f"it was begun on machine {earlier.id} ({earlier.hostname}), this is {here.id}",
            where=where,
            fix="times of different machines cannot be compared; run the whole suite on one",
        )


def check_code(earlier: GitState, here: GitState, where: str) -> None:
    """Refuses to mix what different code has done.

    Raises:
        ConfigError: The commits differ.
    """
    if earlier.commit != here.commit:
        raise ConfigError(
            f"it was begun by {code_name(earlier)}, this is {code_name(here)}",
            where=where,
            fix=f"go back to {code_name(earlier)}, {ANEW}",
        )


def note_on_code(earlier: GitState, here: GitState) -> str | None:
    """What the commit does not identify; None if it identifies all."""
    if not (earlier.dirty or here.dirty):
        return None
    both = earlier.dirty and here.dirty
    when = "at its start and now" if both else "at its start" if earlier.dirty else "now"
    return (
        f"note: TianJi's working tree has uncommitted changes ({when}); only commits are compared"
    )


def check_versions(earlier: Versions, here: Versions, where: str) -> None:
    """Refuses to mix results of different versions of a system.

    Raises:
        ConfigError: A package of one of them has another version than at the start.
    """
    if changes := version_changes(earlier, here):
        raise ConfigError(
            "; ".join(changes), where=where, fix=f"install the versions it was started with, {ANEW}"
        )


def version_changes(earlier: Versions, here: Versions) -> list[str]:
    """Every package of one of the earlier systems that has another version here, in words."""
    return [
        f"{system}: {package} was {_version(before, package)}, is {_version(now, package)}"
        for system, before in earlier.items()
        for now in (here.get(system, {}),)
        for package in sorted({*before, *now})
        if before.get(package) != now.get(package)
    ]


def own_versions() -> dict[str, str]:
    """Of TianJi and of the packages that it computes with, in the interpreter that is running."""
    found = {"tianji": engine.__version__, "python": platform.python_version()}
    for package in (*engine.REQUIREMENTS, *OPTIONAL):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def check_own_versions(earlier: Mapping[str, str], where: str) -> None:
    """Refuses to continue a benchmark with other packages than it was started with.

    Args:
        earlier: As its document says; older ones list none; the check is skipped.
        where: It lies.

    Raises:
        ConfigError: A package has another version than at the start.
    """
    if earlier:
        check_versions({"here": earlier}, {"here": own_versions()}, where)


def check_host_versions(earlier: Iterable[Versions], here: Versions, where: str) -> None:
    """Refuses to mix what hosts have done with different packages.

    Args:
        earlier: By host, of each cell that was run before.
        here: By host, those of a cell.
        where: They were run for.

    Raises:
        ConfigError: A host has another version of a package than it had then.
    """
    known = {host: packages for cell in earlier for host, packages in cell.items()}
    check_versions({host: known[host] for host in here if host in known}, here, where)


def host_versions(manifest: Mapping[str, object]) -> dict[str, dict[str, str]]:
    """By host of a run, of the packages that it ran with.

    Args:
        manifest: The run's; hosts that it does not name, or without versions, are left out.
    """
    view = ManifestView(dict(manifest))
    return {
        host: {name: str(version) for name, version in found.items()}
        for host in view.section("hosts")
        if (found := view.section("hosts", host, "versions"))
    }


def _version(versions: Mapping[str, str], package: str) -> str:
    return versions.get(package, "not there")
