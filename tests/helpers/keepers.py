"""Real keepers on this machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence

import psutil

from tianji_cli.connectors.base import AccessFacts
from tianji_cli.connectors.piped.channel import ProcessChannel
from tianji_cli.connectors.piped.link import KeeperLink, start_keeper
from tianji_cli.connectors.piped.node import PipedNode
from tianji_cli.connectors.piped.program import KeeperProgram

HOST = "box"


class KeptNode(PipedNode):
    """This machine, as a remote host.

    Args:
        before: Shell words that come before the keeper, in the same shell.
        pythons: Interpreters to be tried.
        env: Added to the keeper's environment.
        lease_s: See `start_keeper`.
    """

    def __init__(
        self,
        before: str = "",
        pythons: Sequence[str] = (sys.executable,),
        env: dict[str, str] | None = None,
        lease_s: float | None = None,
    ) -> None:
        self.channel: ProcessChannel | None = None

        def open_channel(program: KeeperProgram) -> ProcessChannel:
            words = program.words(pythons[0])
            if before or env is not None or len(pythons) != 1:
                words = ["/bin/sh", "-c", f"{before}\n{program.script(pythons)}"]
            self.channel = ProcessChannel(words, env)
            return self.channel

        def start() -> KeeperLink:
            return start_keeper(HOST, open_channel, lease_s=lease_s, timeout_s=20)

        super().__init__(HOST, start, AccessFacts(user="ann", endpoint=HOST))

    @property
    def keeper_pid(self) -> int:
        assert self.link
        assert self.channel is not None
        return self.channel.process.pid


def read_all(fd: int) -> bytes:
    """What comes until the end."""
    found = bytearray()
    while data := os.read(fd, 1 << 16):
        found += data
    return bytes(found)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; it can still be a zombie."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(is_so: Callable[[], object]) -> None:
    """Looks again and again, until it is so: the outside world sends no events."""
    end_s = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.01)
