"""This machine, without SSH."""

from __future__ import annotations

import subprocess
import sys
import tempfile


class LocalConnection:
    """A supervisor in its own session: Ctrl-C in the terminal reaches the command only.

    Args:
        host: Its name in the inventory.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engine.runtime.supervisor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.to_supervisor = self._process.stdin.fileno()
        self.from_supervisor = self._process.stdout.fileno()

    def close_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait(self, timeout_s: float) -> bool:
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def error_output(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace").strip()
