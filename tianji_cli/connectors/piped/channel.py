"""Streams of bytes to a keeper: those of any program that is one, or leads to one."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

from tianji_cli.connectors.keeper.serve import Keeper

SILENCE_S = 15.0
"""A transfer without progress for this long counts as broken."""
MAX_ERROR_BYTES = 1 << 16
"""This many last bytes of standard error are kept."""


class ByteChannel(Protocol):
    """A stream of bytes there and back. One thread reads, others write, one at a time."""

    def read(self, max_bytes: int) -> bytes:
        """Waits for bytes; empty at the end. Raises OSError or EOFError if it broke."""
        ...

    def write(self, data: bytes) -> None:
        """Sends all. Raises OSError or EOFError if it broke or does not get on for `SILENCE_S`."""
        ...

    def close(self) -> None:
        """Ends the keeper's input, without waiting. Reading then ends when the keeper has."""
        ...

    def last_words(self) -> str:
        """What was said beside the stream, as on standard error; empty if nothing was."""
        ...


class ProcessChannel:
    """The standard streams of a program here that is a keeper, or leads to one.

    It has its own session: Ctrl-C in the terminal is for this program only.

    Args:
        words: The program.
        env: Added to this process's environment.

    Raises:
        OSError: There is no such program, or it cannot be started.
    """

    def __init__(self, words: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._words = ""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._input, far = socket.socketpair()  # any thread can shut it down
        self._input.settimeout(SILENCE_S)
        try:
            with far:
                self.process = subprocess.Popen(
                    list(words),
                    stdin=far.fileno(),
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    bufsize=0,
                    start_new_session=True,
                    env={**os.environ, **(env or {})},
                )
        except OSError:
            self._input.close()
            self._errors.close()
            raise
        assert self.process.stdout is not None
        self._output = self.process.stdout

    def read(self, max_bytes: int) -> bytes:
        data = self._output.read(max_bytes) or b""
        if not data:
            self._output.close()
            self.process.wait()
            self._input.close()
            self._words = self.last_words()
            self._errors.close()
        return data

    def write(self, data: bytes) -> None:
        self._input.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self._input.shutdown(socket.SHUT_RDWR)

    def last_words(self) -> str:
        with contextlib.suppress(ValueError):  # it has ended
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - MAX_ERROR_BYTES))
            return self._errors.read().decode("utf-8", "replace").strip()
        return self._words


class ThreadChannel:
    """A keeper in a thread of this process.

    Raises:
        OSError: This process can open no more files.
    """

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        try:
            keeper = Keeper(self._far.fileno(), self._far.fileno(), None)
        except OSError:
            self._near.close()
            self._far.close()
            raise
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._serve, args=(keeper,), name="keeper", daemon=True
        )
        self._thread.start()

    def _serve(self, keeper: Keeper) -> None:
        with self._far:
            keeper.serve()

    def read(self, max_bytes: int) -> bytes:
        data = self._near.recv(max_bytes)
        if not data:
            self._near.close()
            self._ended.set()
        return data

    def write(self, data: bytes) -> None:
        self._near.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self._near.shutdown(socket.SHUT_WR)

    def last_words(self) -> str:
        return ""

    def wait(self, timeout_s: float) -> None:
        """Waits for the keeper's end, and until that has been read."""
        self._thread.join(timeout_s)
        self._ended.wait(timeout_s)
