"""Files of a host: over SFTP, or with shell commands if SFTP does not work.

A login shell that prints text, or that cannot start programs by path, breaks sshd's SFTP server;
some hosts have none. All functions raise `OSError` if the host refuses.
"""

from __future__ import annotations

import errno
import shlex
import stat
from collections.abc import Callable
from typing import Protocol

import paramiko  # noqa: TID253 - this module is only imported for hosts behind SSH

from tianji_cli.connectors.base import MAX_DEPTH, MAX_FILES
from tianji_cli.connectors.remote_shell import ShellAnswer

PUT_CHUNK_BYTES = 1 << 18
_NOT_THERE = 44
"""Our exit code for a file that does not exist."""

RunLine = Callable[[str, bytes], ShellAnswer]
"""Runs a shell line with this input, to its end."""


class Files(Protocol):
    """Files of a host, by absolute paths."""

    def home(self) -> str: ...

    def put(self, path: str, data: bytes) -> None: ...

    def exists(self, path: str) -> bool: ...

    def read(self, path: str, offset: int, max_bytes: int) -> bytes:
        """This many bytes from `offset` on, or to the end if negative.

        Raises FileNotFoundError.
        """
        ...

    def walk(self, root: str) -> dict[str, int]:
        """Sizes of the files below, by relative path, within `MAX_DEPTH` and `MAX_FILES`.

        Raises FileNotFoundError.
        """
        ...


class SftpFiles:
    """Over SFTP.

    Args:
        sftp: Open.
    """

    def __init__(self, sftp: paramiko.SFTPClient) -> None:
        self._sftp = sftp

    def home(self) -> str:
        return self._sftp.normalize(".")

    def put(self, path: str, data: bytes) -> None:
        with self._sftp.open(path, "wb") as file:
            file.set_pipelined(True)
            view = memoryview(data)
            for start in range(0, len(data), PUT_CHUNK_BYTES):
                file.write(bytes(view[start : start + PUT_CHUNK_BYTES]))

    def exists(self, path: str) -> bool:
        try:
            self._sftp.stat(path)
        except FileNotFoundError:
            return False
        return True

    def read(self, path: str, offset: int, max_bytes: int) -> bytes:
        with self._sftp.open(path, "rb") as file:
            file.seek(offset)
            return file.read(max_bytes) if max_bytes >= 0 else file.read()

    def walk(self, root: str) -> dict[str, int]:
        found: dict[str, int] = {}

        def look(prefix: str, depth: int) -> None:
            # not listdir_iter: it sends requests ahead, and other requests would take its answers
            entries = self._sftp.listdir_attr(f"{root}/{prefix}")
            for entry in entries[:MAX_FILES]:
                mode, name = entry.st_mode or 0, f"{prefix}{entry.filename}"
                if stat.S_ISDIR(mode) and depth < MAX_DEPTH:
                    look(f"{name}/", depth + 1)
                elif stat.S_ISREG(mode) and len(found) < MAX_FILES:
                    found[name] = entry.st_size or 0

        look("", 1)
        return found


class ShellFiles:
    """With commands that every Linux has.

    Args:
        run_line: Runs a shell line.
    """

    def __init__(self, run_line: RunLine) -> None:
        self._run_line = run_line

    def home(self) -> str:
        return self._run("cd && pwd").decode("utf-8", "surrogateescape").rstrip("\n")

    def put(self, path: str, data: bytes) -> None:
        self._run(f"cat > {shlex.quote(path)}", data)

    def exists(self, path: str) -> bool:
        name = shlex.quote(path)
        return self._run(f"if [ -e {name} ]; then echo yes; fi") != b""

    def read(self, path: str, offset: int, max_bytes: int) -> bytes:
        name = shlex.quote(path)
        limit = f" | head -c {max_bytes}" if max_bytes >= 0 else ""
        words = f"tail -c +{offset + 1} -- {name}{limit}"
        return self._run(f"[ -e {name} ] || exit {_NOT_THERE}; {words}")

    def walk(self, root: str) -> dict[str, int]:
        name = shlex.quote(root)
        find = f"find {name} -maxdepth {MAX_DEPTH} -type f -printf '%s %P\\0'"
        line = f"[ -d {name} ] || exit {_NOT_THERE}; {find} | head -z -n {MAX_FILES}"
        text = self._run(line).decode("utf-8", "surrogateescape")
        rows = (entry.partition(" ") for entry in text.split("\0") if entry)
        return {path: int(size) for size, _, path in rows}

    def _run(self, line: str, data: bytes = b"") -> bytes:
        answer = self._run_line(line, data)
        if answer.code == _NOT_THERE:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        if answer.code != 0:
            said = answer.stderr.decode("utf-8", "replace").strip().splitlines()
            raise OSError(errno.EIO, said[-1] if said else f"ended with code {answer.code}")
        return answer.stdout
