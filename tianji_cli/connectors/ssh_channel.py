"""A session of an SSH connection as a channel to a keeper.

sshd starts the user's login shell, which can be any shell: tcsh, fish or a restricted one parses
quotes, line breaks and `exec` in its own way, and its start-up files can print text. So it is only
asked to run `sh -s`, and `sh` then reads a script that becomes the keeper.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import paramiko  # noqa: TID253 - this module is only imported for hosts behind SSH

from tianji_cli.connectors.piped.channel import MAX_ERROR_BYTES, SILENCE_S

LOGIN_LINE = "sh -s"
"""The only line that the login shell must parse."""
EXIT_S = 1.0


class SshChannel:
    """The standard streams of `sh`, which has a script to run.

    Args:
        session: Just opened.
        script: A line or several.

    Raises:
        EOFError: The connection broke.
    """

    def __init__(self, session: paramiko.Channel, script: str) -> None:
        self._session = session
        self._errors = bytearray()
        with _broken_as_eof():
            session.settimeout(SILENCE_S)
            session.exec_command(LOGIN_LINE)
        # in braces, so that `sh` has read all of it before it runs any: what follows is not its own
        text = f"{{ {script}\n}}\n"
        with contextlib.suppress(EOFError):  # an early end is explained on its streams
            self.write(text.encode("utf-8", "surrogateescape"))

    def read(self, max_bytes: int) -> bytes:
        with _broken_as_eof():
            while True:
                try:
                    data = self._session.recv(max_bytes)
                except TimeoutError:
                    continue  # the time-out is for writing
                self._take_errors()
                return data

    def write(self, data: bytes) -> None:
        with _broken_as_eof():
            self._session.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(EOFError), _broken_as_eof():  # it broke already
            self._session.close()

    def last_words(self) -> str:
        return bytes(self._errors).decode("utf-8", "replace").strip()

    @property
    def exit_words(self) -> str:
        """Its exit code in brackets, if there is one."""
        has_ended = self._session.status_event.wait(EXIT_S) and self._session.exit_status >= 0
        return f" (exit code {self._session.exit_status})" if has_ended else ""

    def _take_errors(self) -> None:
        while self._session.recv_stderr_ready():
            self._errors += self._session.recv_stderr(MAX_ERROR_BYTES)
        del self._errors[:-MAX_ERROR_BYTES]


@contextlib.contextmanager
def _broken_as_eof() -> Iterator[None]:
    """Of paramiko's own errors, some are no `OSError`."""
    try:
        yield
    except (paramiko.SSHException, OSError) as error:
        raise EOFError(str(error) or type(error).__name__) from error
