"""This machine, without SSH: its keeper is a thread of this process."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from engine.host.account import expand, user_label
from tianji_cli.connectors.base import AccessFacts
from tianji_cli.connectors.piped.channel import ThreadChannel
from tianji_cli.connectors.piped.link import KeeperLink
from tianji_cli.connectors.piped.node import PipedNode

LEAVE_S = 1.0
"""For the keeper, once the commands have ended; others it leaves to themselves."""


class LocalNode(PipedNode):
    """This machine as a host of a run. Commands have their own sessions: Ctrl-C in the terminal
    reaches only this program.

    Args:
        name: Its name in the inventory.
    """

    def __init__(self, name: str) -> None:
        self._channel: ThreadChannel | None = None
        access = AccessFacts(user=user_label(), endpoint="this machine")
        super().__init__(name, self._join_keeper, access, is_remote=False)

    def _join_keeper(self) -> KeeperLink:
        self._channel = ThreadChannel()
        link = KeeperLink(self.name, self._channel)
        link.join()
        return link

    def expand(self, path: str) -> str:
        expanded = expand(path)
        if str(expanded).startswith("~"):  # a user without a home
            own = Path(tempfile.gettempdir(), f"tianji-{os.getuid()}")
            return str(own / Path(*expanded.parts[1:]))
        return str(expanded.absolute())

    def close(self) -> None:
        super().close()
        if self._channel is not None:
            self._channel.wait(LEAVE_S)
