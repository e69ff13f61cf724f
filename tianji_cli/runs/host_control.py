"""Inspects or ends a run on a host and removes its directory, from what the run recorded."""

from __future__ import annotations

import sys
from pathlib import PurePosixPath

import msgspec

from engine.errors import CleanupError, TianJiError
from engine.search_path import module_command
from engine.supervision.run_inspector import Findings
from tianji_cli.connectors.base import Completed, Node, with_environment
from tianji_cli.provisioning.bundle import source_root
from tianji_cli.storage.deployment import INSPECTOR, HostPart

LOOK_S = 20.0
STEP_S = 30.0


def _inspect(node: Node, part: HostPart, limit_s: float, *arguments: str) -> Findings:
    """Runs a module of the run's own sources there, without heavy imports.

    On this machine it is always this program's own module, whatever the run's files say.
    """
    python, source, module = part.python, part.source, part.inspecting_module
    if not node.is_remote:
        python, source, module = sys.executable, str(source_root()), INSPECTOR
    command = with_environment(module_command(python, module, *arguments), {"PYTHONPATH": source})
    done = node.run(command, limit_s)
    return _decode(node, done)


def _decode(node: Node, done: Completed) -> Findings:
    try:
        return msgspec.json.decode(done.stdout, type=Findings)
    except msgspec.DecodeError:
        raise TianJiError(
            f"it cannot be inspected (exit code {done.code}){done.last_words}", where=node.name
        ) from None


def look_at_part(node: Node, part: HostPart, run_id: str) -> Findings:
    """The state of a run on a host.

    Raises:
        TianJiError: The host cannot be asked.
    """
    return _inspect(node, part, LOOK_S, "look", part.run_dir, run_id, part.host.name, *_known(part))


def end_part(node: Node, part: HostPart, run_id: str, within_s: float) -> Findings:
    """Stops a run on a host gracefully, then kills it.

    Args:
        node, part, run_id: The host, its part, and the run.
        within_s: Time for a graceful stop.

    Returns:
        The state after it.

    Raises:
        TianJiError: The host cannot be asked.
    """
    arguments = ("stop", part.run_dir, run_id, part.host.name, str(within_s), *_known(part))
    return _inspect(node, part, LOOK_S + within_s, *arguments)


def _known(part: HostPart) -> list[str]:
    """The attempt; omitted for a run without one, whose program possibly lacks the argument."""
    return [part.attempt] if part.attempt else []


def remove_part(node: Node, part: HostPart, run_id: str) -> None:
    """Removes the run's directory from a remote host.

    Raises:
        CleanupError: It is still there, or it is not a directory of this run.
    """
    place = PurePosixPath(part.run_dir)
    is_ours = place.is_absolute() and ".." not in place.parts and place.parent.name == "runs"
    if not is_ours or place.name.partition("@")[0] != run_id:
        raise CleanupError(f"{part.run_dir} is not removed: it is not this run's", where=node.name)
    done = node.run(["rm", "-rf", "--", part.run_dir], STEP_S)
    if done.code != 0:
        raise CleanupError(f"{part.run_dir} is still there{done.last_words}", where=node.name)
