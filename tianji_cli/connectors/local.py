"""This machine, without SSH."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.errors import DeadlineError, PreflightError
from engine.host.account import expand, user_label
from tianji_cli.connectors.base import AccessFacts, Completed


class LocalConnection:
    """A process in its own session: Ctrl-C in the terminal reaches only the command.

    Args:
        host: Its name in the inventory.
        command: What to start.
        env: Added to this process's environment.
        directory: Its working directory; None for this process's.
    """

    def __init__(
        self,
        host: str,
        command: Sequence[str],
        env: Mapping[str, str],
        directory: str | None = None,
    ) -> None:
        self.host = host
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            env={**os.environ, **env},
            cwd=directory,
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

    def close(self) -> None:
        self.close_input()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()


class LocalNode:
    """This machine as a host of a run.

    Args:
        name: Its name in the inventory.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_remote = False
        self.access = AccessFacts(user=user_label(), endpoint="this machine")
        self._connections: list[LocalConnection] = []

    def expand(self, path: str) -> str:
        expanded = expand(path)
        if str(expanded).startswith("~"):  # a user without a home
            own = Path(tempfile.gettempdir(), f"tianji-{os.getuid()}")
            return str(own / Path(*expanded.parts[1:]))
        return str(expanded.absolute())

    def run(self, command: Sequence[str], timeout_s: float) -> Completed:
        try:
            result = subprocess.run(
                list(command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DeadlineError(
                f"{command[0]} took longer than {timeout_s:.0f} s", where=self.name
            ) from None
        except FileNotFoundError:
            return Completed(127, "", f"{command[0]}: not found")
        except PermissionError:
            return Completed(126, "", f"{command[0]}: permission denied")
        out, err = (
            result.stdout.decode("utf-8", "replace"),
            result.stderr.decode("utf-8", "replace"),
        )
        return Completed(result.returncode, out, err)

    def spawn(
        self, command: Sequence[str], env: Mapping[str, str], directory: str | None = None
    ) -> LocalConnection:
        connection = LocalConnection(self.name, command, env, directory)
        self._connections.append(connection)
        return connection

    def put(self, path: str, data: bytes) -> None:
        Path(path).write_bytes(data)

    def exists(self, path: str) -> bool:
        try:
            return Path(path).exists()
        except OSError as error:
            raise PreflightError(f"{path}: {error.strerror or error}", where=self.name) from error

    def read(self, path: str, offset: int = 0, max_bytes: int = -1) -> bytes:
        try:
            with Path(path).open("rb") as file:
                file.seek(offset)
                return file.read(max_bytes)
        except FileNotFoundError:
            return b""

    def walk(self, root: str) -> dict[str, int]:
        base = Path(root)
        files = [path for path in base.rglob("*") if path.is_file()]
        return {str(path.relative_to(base)): path.stat().st_size for path in files}

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
