"""An SSH channel as a pair of descriptors: one thread pumps between it and two pipes.

A controller can then wait for local pipes and remote channels in one `select`.
"""

from __future__ import annotations

import os
import select
import threading
from typing import Protocol

CHUNK_BYTES = 1 << 16
MAX_ERROR_BYTES = 1 << 16
"""This many last bytes of standard error are kept."""


class SshChannel(Protocol):
    """The part of paramiko's channel that is used."""

    @property
    def closed(self) -> bool: ...

    @property
    def eof_received(self) -> bool | int: ...

    def fileno(self) -> int: ...

    def recv(self, nbytes: int) -> bytes: ...

    def recv_ready(self) -> bool: ...

    def recv_stderr(self, nbytes: int) -> bytes: ...

    def recv_stderr_ready(self) -> bool: ...

    def sendall(self, s: bytes) -> None: ...

    def shutdown_write(self) -> None: ...

    def close(self) -> None: ...


class Bridge:
    """A started remote command whose standard streams are local descriptors.

    Args:
        host: Its name in the inventory.
        channel: Its command was started already.
        said: Its output so far.
        mark: Start of its standard error; anything before is from the login shell.
    """

    def __init__(
        self, host: str, channel: SshChannel, said: bytes = b"", mark: bytes = b""
    ) -> None:
        self.host = host
        self._channel = channel
        self._said = said
        self._mark = mark
        self._input, self.to_supervisor = os.pipe()
        self.from_supervisor, self._output = os.pipe()
        self._errors = bytearray()
        self._is_input_closed = False
        self._is_closed = False
        self._input_is_open = True
        self._thread = threading.Thread(target=self._pump, name=f"ssh {host}", daemon=True)
        self._thread.start()

    def close_input(self) -> None:
        if not self._is_input_closed:
            self._is_input_closed = True
            os.close(self.to_supervisor)

    def wait(self, timeout_s: float) -> bool:
        """Waits for the end of the command or of the connection."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def error_output(self) -> str:
        before, found, after = bytes(self._errors).partition(self._mark or b"\0")
        return (after if found else before).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Closes the channel, which ends the pumping thread.

        Close our ends first: the thread can be waiting for input, or to write what is never read.
        """
        self.close_input()
        if not self._is_closed:
            self._is_closed = True
            os.close(self.from_supervisor)
        self._channel.close()
        self._thread.join(5.0)

    def _pump(self) -> None:
        try:
            _write_all(self._output, self._said)
            while self._pump_once():
                pass
        except (OSError, EOFError) as error:
            self._errors += f"\n(the connection to {self.host} broke: {error})".encode()
        finally:
            os.close(self._output)
            os.close(self._input)
            self._channel.close()

    def _pump_once(self) -> bool:
        """Forwards available data. False at the end of the remote output."""
        sources: list[int | SshChannel] = [self._channel]
        if self._input_is_open:
            sources.append(self._input)
        ready, _, _ = select.select(sources, [], [])
        if self._input in ready:
            self._send_input()
        if self._channel.recv_stderr_ready():
            self._errors += self._channel.recv_stderr(CHUNK_BYTES)
            del self._errors[:-MAX_ERROR_BYTES]
        elif self._channel.recv_ready() or self._channel.eof_received or self._channel.closed:
            data = self._channel.recv(CHUNK_BYTES)
            if not data:
                self._drain_errors()
                return False
            _write_all(self._output, data)
        return True

    def _drain_errors(self) -> None:
        while data := self._channel.recv_stderr(CHUNK_BYTES):
            self._errors += data
        del self._errors[:-MAX_ERROR_BYTES]

    def _send_input(self) -> None:
        data = os.read(self._input, CHUNK_BYTES)
        if data:
            self._channel.sendall(data)
        else:
            self._input_is_open = False
            self._channel.shutdown_write()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
