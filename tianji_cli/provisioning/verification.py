"""Checks that files on a host are as they were put there (`engine/host/host_check.py`).

A name that is a digest tells what was put there, not what a full disk, a power loss or manual
changes left of it.
"""

from __future__ import annotations

import msgspec

from engine.errors import PreflightError
from engine.host.host_check import DAMAGED_NAME
from tianji_cli.connectors.base import Node
from tianji_cli.provisioning.bundle import Bundle
from tianji_cli.provisioning.probe import script_command

CHECK_S = 50.0
"""Some hundred files, which can be on a network file system."""
COMPLETE_NAME = ".complete"
"""In an environment: the installation is complete."""
_SCRIPT = "engine/host/host_check.py"


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a bundle or environment on a host.

    Attributes:
        damage: Why it is damaged; empty if it is intact, or not there.
    """

    is_there: bool
    damage: str = ""

    @property
    def is_sound(self) -> bool:
        return self.is_there and not self.damage

    def words(self, name: str) -> str:
        """The action for it, as text."""
        if self.damage:
            return f"{name} is damaged there ({self.damage}): sent anew"
        return f"{name} is there" if self.is_there else name


def look_at_bundle(node: Node, python: str, place: str, bundle: Bundle) -> Held:
    """Whether a bundle is in its place, with its original content.

    A damaged one is marked, so that `put_in_place` replaces it.

    Args:
        python: Any interpreter of the host.

    Raises:
        PreflightError: The host gives no answer.
    """
    command = script_command(python, _SCRIPT, "bundle", place, bundle.list_sha256)
    done = node.run(command, CHECK_S)
    try:
        return msgspec.json.decode(done.stdout, type=Held)
    except msgspec.DecodeError:
        raise PreflightError(
            f"{place} cannot be looked at (exit code {done.code}){done.last_words}",
            where=node.name,
        ) from None


def look_at_environment(node: Node, place: str, constraints: str) -> Held:
    """Whether an environment made by TianJi is in its place and complete.

    One without `.complete` is not one of these: only its probe counts.
    """
    python = f"{place}/bin/python"
    if not any(node.exists(f"{place}/{name}") for name in (COMPLETE_NAME, DAMAGED_NAME)):
        return Held(is_there=node.exists(python))
    done = node.run(script_command(python, _SCRIPT, "environment", *constraints.split()), CHECK_S)
    try:
        return msgspec.json.decode(done.stdout, type=Held)
    except msgspec.DecodeError:
        damage = f"its interpreter does not work (exit code {done.code}){done.last_words}"
        return Held(is_there=True, damage=damage)


def put_in_place(beside: str, place: str) -> list[str]:
    """The command that moves a temporary directory to its place.

    It fails if something is there, unless that is marked as damaged: then that is moved to
    `<beside>.old`. Of several concurrent commands one succeeds.
    """
    script = f'[ ! -e "$2/{DAMAGED_NAME}" ] || mv -T -- "$2" "$1.old"; exec mv -T -- "$1" "$2"'
    return ["sh", "-c", script, "mv", beside, place]
