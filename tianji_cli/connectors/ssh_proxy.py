"""A connection through a `ProxyCommand`: a socket with a command at its other end."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from typing import IO


class ProxyCommand(socket.socket):
    """The local end; the user's shell runs the command, as with `ssh`.

    It has its own session: Ctrl-C in the terminal is for this program, which needs the connection
    to stop a run gracefully.
    """

    _process: subprocess.Popen[bytes]
    _errors: IO[bytes]
    last_words = ""
    """The command's last line on standard error; known once this is closed."""

    @classmethod
    def start(cls, command: str) -> ProxyCommand:
        """Starts the command."""
        near, far = socket.socketpair()
        proxy = cls(fileno=near.detach())
        proxy._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        shell = os.environ.get("SHELL") or "/bin/sh"
        with far:
            proxy._process = subprocess.Popen(
                [shell, "-c", f"exec {command}"],
                stdin=far.fileno(),
                stdout=far.fileno(),
                stderr=proxy._errors,
                start_new_session=True,
            )
        return proxy

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        if not self._errors.closed:
            with self._errors as file:
                file.seek(0)
                lines = file.read().decode("utf-8", "replace").strip().splitlines()
            self.last_words = lines[-1] if lines else ""
        super().close()
