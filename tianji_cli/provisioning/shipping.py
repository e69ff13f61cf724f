"""The files that are put on a remote host, and the start of the supervisor from them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import PurePosixPath

from engine.errors import ConfigError, PreflightError, TianJiError
from engine.host.host_check import DAMAGED_NAME
from engine.host.process_identity import RUN_VARIABLE, mark
from engine.search_path import module_command, own_path
from tianji_cli.connectors.base import Connection, Node
from tianji_cli.provisioning.bundle import MODULES_PREFIX, Bundle
from tianji_cli.provisioning.verification import put_in_place
from tianji_cli.storage.deployment import HostPart

STEP_S = 30.0
REMOVE_S = 300.0
"""An environment has tens of thousands of files, and can be on a network file system."""
STALE_MINUTES = 60
"""No attempt takes this long: anything older was left by a killed command."""
MODULES_DAYS = 30
"""A user's own modules are sent again after each change, so old ones are of no further use."""
RUN_DIRECTORIES = ("trace", "checkpoints", "plots", "state")


def make_run_directories(node: Node, part: HostPart) -> None:
    """Creates the subdirectories of a run's directory on a remote host.

    Raises:
        PreflightError: They cannot be made.
    """
    directories = [f"{part.run_dir}/{name}" for name in RUN_DIRECTORIES]
    make_directories(node, [*directories, f"{part.run_dir}/logs/{part.host.name}"])


def claim_directory(node: Node, part: HostPart) -> None:
    """Creates the run's directory on a remote host, which only one run can do.

    Raises:
        ConfigError: It exists.
        PreflightError: It cannot be made.
    """
    make_directories(node, [str(PurePosixPath(part.run_dir).parent)])
    done = node.run(["sh", "-c", 'umask 077; exec mkdir -- "$1"', "sh", part.run_dir], STEP_S)
    if done.code == 0:
        return
    if node.exists(part.run_dir):
        raise run_exists(part.host.name, part.run_dir)
    raise PreflightError(f"directories cannot be made{done.last_words}", where=node.name)


def run_exists(host: str, run_dir: str) -> ConfigError:
    """The error for the directory of another run."""
    return ConfigError(
        f"a run of this name exists there ({run_dir})",
        where=host,
        fix="choose another --name, or end it where it was started: tianji down",
    )


def make_directories(node: Node, directories: Sequence[str]) -> None:
    """Makes directories and their parents, readable only by the user.

    Raises:
        PreflightError: They cannot be made.
    """
    done = node.run(["sh", "-c", 'umask 077; exec mkdir -p -- "$@"', "sh", *directories], STEP_S)
    if done.code != 0:
        raise PreflightError(f"directories cannot be made{done.last_words}", where=node.name)


def ship(node: Node, workdir: str, bundle: Bundle, mark: str) -> None:
    """Unpacks a bundle into a temporary directory and renames it, so that it is atomic.

    It replaces one that was found damaged.

    Args:
        mark: Name of this attempt; there can be several at a time.

    Raises:
        PreflightError: It cannot be unpacked.
    """
    place = f"{workdir}/bundles/{bundle.name}"
    beside = f"{workdir}/bundles/.{bundle.name}.{mark}"
    sweep(node, f"{workdir}/bundles")
    make_directories(node, [beside])
    node.put(f"{beside}.tar", bundle.data)
    unpack = ["tar", "-xf", f"{beside}.tar", "-C", beside]
    for step, command in (("tar", unpack), ("mv", put_in_place(beside, place))):
        done = node.run(command, STEP_S)
        if done.code != 0 and not is_in_place(node, place):
            raise PreflightError(
                f"the bundle cannot be unpacked: {step} ended with code"
                f" {done.code}{done.last_words}",
                where=node.name,
            )
    discard(node, f"{beside}.tar", beside, f"{beside}.old")


def is_in_place(node: Node, place: str) -> bool:
    """Whether another command was faster."""
    return node.exists(place) and not node.exists(f"{place}/{DAMAGED_NAME}")


def discard(node: Node, *paths: str) -> None:
    """Removes the files of an attempt; failures are harmless and not reported."""
    with contextlib.suppress(TianJiError):
        node.run(["rm", "-rf", "--", *paths], REMOVE_S)


def forget_modules(node: Node, workdir: str) -> None:
    """Removes users' own modules that no run needs any more."""
    old = ["-maxdepth", "1", "-name", f"{MODULES_PREFIX}*", "-mtime", f"+{MODULES_DAYS}"]
    with contextlib.suppress(TianJiError):
        node.run(
            ["find", f"{workdir}/bundles", *old, "-exec", "rm", "-rf", "--", "{}", "+"], REMOVE_S
        )


def sweep(node: Node, directory: str) -> None:
    """Removes files of killed attempts in a directory: hidden and old."""
    old = ["-maxdepth", "1", "-name", ".*.*", "-mmin", f"+{STALE_MINUTES}"]
    with contextlib.suppress(TianJiError):
        node.run(["find", directory, *old, "-exec", "rm", "-rf", "--", "{}", "+"], REMOVE_S)


def start_supervisor(node: Node, part: HostPart, run_id: str) -> Connection:
    """Starts the supervisor, with no secrets on its command line or in its environment."""
    path = part.source if node.is_remote else own_path(os.environ.get("PYTHONPATH"))
    env = {RUN_VARIABLE: mark(run_id, part.host.name, part.run_dir, part.attempt)}
    if path:
        env["PYTHONPATH"] = path
    command = module_command(part.python, "engine.supervision.supervisor")
    return node.spawn(command, env, directory=part.source if node.is_remote else None)
