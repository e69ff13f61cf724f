"""Selects the Python of a host: the one that the inventory names, one with all packages, or a
virtual environment that is made there once for each set of pinned versions."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass, replace

from engine import REQUIREMENTS
from engine.errors import PreflightError, VersionMismatchError
from engine.host.host_check import DAMAGED_NAME
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import Completed, Node
from tianji_cli.provisioning.bundle import CONSTRAINTS_NAME, environment_name
from tianji_cli.provisioning.probe import ProbeFacts, minor_of, probe
from tianji_cli.provisioning.shipping import discard, sweep
from tianji_cli.provisioning.verification import COMPLETE_NAME, look_at_environment, put_in_place

VENV_S = 60.0
INSTALL_S = 900.0
MIN_FREE_BYTES = 64 * 2**20
PIP_OPTIONS = ("--quiet", "--no-input", "--disable-pip-version-check", "--requirement")


@dataclass(frozen=True)
class Interpreter:
    """A Python on a host.

    Attributes:
        damage: Why the environment made there is damaged and not used; empty if it is not.
    """

    path: str
    facts: ProbeFacts
    damage: str = ""


def find_interpreter(node: Node, host: Host, constraints: str) -> Interpreter:
    """The best Python of a host: with all packages if there is one, else of the right release.

    Raises:
        PreflightError: There is none, or the host has too little disk.
        VersionMismatchError: The one that the inventory names is of another release.
    """
    workdir = node.expand(host.workdir)
    wanted = minor_of(platform.python_version())
    named = [node.expand(host.python) if "/" in host.python else host.python] if host.python else []
    place = f"{workdir}/venvs/{environment_name(constraints, wanted)}"
    made, damage = f"{place}/bin/python", ""
    found: list[Interpreter] = []
    # Nodes of a cluster often share a disk, and so have the interpreter of this command.
    own = (sys.executable,) if host.connection == "slurm" else ()
    for path in (*named, made) if named else (*own, made, f"python{wanted}", "python3"):
        if path == made:
            held = look_at_environment(node, place, constraints)
            damage = held.damage
            if not held.is_sound:
                continue
        facts = probe(node, path, workdir, REQUIREMENTS)
        if facts is not None:
            found.append(Interpreter(path, facts))
        is_right = facts is not None and facts.minor == wanted
        is_complete = facts is not None and not facts.missing
        if (is_right and is_complete) or (path in named and not is_right):
            break  # the inventory's choice counts, even if another one would work
    right = [item for item in found if item.facts.minor == wanted]
    if not right:
        raise _none(node, host, found, named, wanted)
    best = min(right, key=lambda item: len(item.facts.missing))
    _check_disk(node, workdir, best.facts)
    return replace(best, damage=damage)


def _none(
    node: Node, host: Host, found: list[Interpreter], named: list[str], wanted: str
) -> PreflightError | VersionMismatchError:
    fix = (
        f"install Python {wanted} there (Debian: apt install python{wanted} python{wanted}-venv),"
        " or give its path with `python:` in the inventory"
    )
    if not found:
        looked_for = named[0] if named else f"python{wanted} and python3"
        return PreflightError(f"there is no Python ({looked_for})", where=node.name, fix=fix)
    there = found[0].facts.python
    return VersionMismatchError(
        f"{found[0].path} is Python {there}, here runs {platform.python_version()};"
        " both must be of the same minor release",
        where=node.name,
        fix=fix,
    )


def _check_disk(node: Node, workdir: str, facts: ProbeFacts) -> None:
    if not facts.is_writable:
        raise PreflightError(
            f"{workdir} cannot be written", where=node.name, fix="give another `workdir:`"
        )
    if facts.disk_free_bytes < MIN_FREE_BYTES:
        raise PreflightError(
            f"only {facts.disk_free_bytes / 2**20:.0f} MiB are free at {workdir}, a run needs"
            f" {MIN_FREE_BYTES // 2**20}",
            where=node.name,
            fix="free space there, or give another `workdir:`",
        )


def make_environment(
    node: Node, base: Interpreter, workdir: str, bundle: str, constraints: str, mark: str
) -> str:
    """Makes a virtual environment from the pinned constraints, unless a complete one exists.

    It is made in a temporary directory and renamed: hosts that share a home directory, and
    concurrent commands, can all make it, and none removes it while processes of another use it. Its
    scripts name the temporary path: `bin/python -m pip` works, `bin/pip` does not.

    Args:
        mark: Name of this attempt; there can be several at a time.

    Returns:
        Its interpreter.

    Raises:
        PreflightError: It cannot be made; the error has the last output of what failed.
    """
    name = environment_name(constraints, base.facts.minor)
    directory = f"{workdir}/venvs/{name}"
    python = f"{directory}/bin/python"
    if base.damage:
        complete, damaged = f"{directory}/{COMPLETE_NAME}", f"{directory}/{DAMAGED_NAME}"
        node.run(["mv", "-f", "--", complete, damaged], VENV_S)  # unless that was done before
    if node.exists(f"{directory}/{COMPLETE_NAME}"):
        return python
    if not base.facts.has_venv:
        raise PreflightError(
            f"{base.path} lacks {', '.join(base.facts.missing)} and cannot make a virtual"
            " environment",
            where=node.name,
            fix=f"apt install python{base.facts.minor}-venv there, or give another `python:`",
        )
    sweep(node, f"{workdir}/venvs")
    beside = f"{workdir}/venvs/.{name}.{mark}"
    for command, limit_s in _steps(base.path, beside, f"{bundle}/{CONSTRAINTS_NAME}"):
        done = node.run(command, limit_s)
        if done.code != 0:
            discard(node, beside)
            if node.exists(f"{directory}/{COMPLETE_NAME}"):
                return python  # another command was faster
            raise _not_made(node, base, " ".join(command[:4]), done)
    done = node.run(put_in_place(beside, directory), VENV_S)
    discard(node, beside, f"{beside}.old")
    if done.code != 0 and not node.exists(f"{directory}/{COMPLETE_NAME}"):
        # made by hand, or left by an older release
        fix = f"if no run there uses it, remove {directory}"
        raise _not_made(node, base, f"mv {beside} {directory}", done, fix)
    return python


def _steps(base: str, beside: str, constraints: str) -> list[tuple[list[str], float]]:
    """The commands that make an environment, with time-outs."""
    pip = [f"{beside}/bin/python", "-P", "-m", "pip", "install", *PIP_OPTIONS, constraints]
    return [
        ([base, "-P", "-m", "venv", "--clear", beside], VENV_S),
        (pip, INSTALL_S),
        (["touch", f"{beside}/{COMPLETE_NAME}"], VENV_S),
    ]


def _not_made(
    node: Node, base: Interpreter, step: str, done: Completed, fix: str = ""
) -> PreflightError:
    missing = ", ".join(base.facts.missing or REQUIREMENTS)
    return PreflightError(
        f"its environment cannot be made: {step} ended with code {done.code}{done.last_words}",
        where=node.name,
        fix=fix or f"give a `python:` in the inventory that has {missing}",
    )
