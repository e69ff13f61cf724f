"""A command that a keeper has started, with its standard streams as descriptors here."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import Any

from engine.errors import HostUnreachableError
from tianji_cli.connectors.keeper.frames import CHUNK_BYTES
from tianji_cli.connectors.piped.call import Call
from tianji_cli.connectors.piped.channel import MAX_ERROR_BYTES

LEAVE_S = 1.0
"""For the thread that sends input, which can be about to send some over a slow channel."""


class PipedConnection:
    """Two threads pump between the descriptors and the keeper.

    Args:
        host: Its name in the inventory.
        call: The request that starts the command.
    """

    def __init__(self, host: str, call: Call) -> None:
        self.host = host
        self._call = call
        self._given, giving = socket.socketpair()  # any thread can shut it down
        self.to_supervisor = giving.detach()
        self.from_supervisor, self._output = os.pipe()
        self._errors = bytearray()
        self._is_input_closed = self._is_closed = self._is_output_closed = False
        self._ended = threading.Event()
        self._sending = threading.Thread(target=self._send, name=f"to {host}", daemon=True)
        self._sending.start()
        threading.Thread(target=self._receive, name=f"from {host}", daemon=True).start()

    def close_input(self) -> None:
        if not self._is_input_closed:
            self._is_input_closed = True
            os.close(self.to_supervisor)

    def wait(self, timeout_s: float) -> bool:
        """Waits for the end of the command or of the connection."""
        return self._ended.wait(timeout_s)

    def error_output(self) -> str:
        return bytes(self._errors).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Closes the descriptors; the command's streams are closed as soon as it hears of it."""
        self.close_input()
        if not self._is_closed:
            self._is_closed = True
            os.close(self.from_supervisor)
            self._call.take(({"op": "close"}, b""))

    def _send(self) -> None:
        with self._given, contextlib.suppress(HostUnreachableError, OSError):
            while data := self._given.recv(CHUNK_BYTES):
                if not self._call.give(data, None):
                    return
            self._call.say("end")

    def _receive(self) -> None:
        try:
            for header, body in self._call.frames(None):
                self._take(header, body)
        except HostUnreachableError as error:
            self._errors += f"\n({error.what})".encode()
        finally:
            self._close_output()
            self._end_input()
            self._sending.join(LEAVE_S)
            self._ended.set()

    def _take(self, header: dict[str, Any], body: bytes) -> None:
        op = header["op"]
        if op == "err":
            self._errors += body
            del self._errors[:-MAX_ERROR_BYTES]
        elif op == "out":
            self._write(body)
        elif op == "eof" and header["of"] == "out":
            self._close_output()
        elif op == "eof" and header["of"] == "in":
            self._end_input()
        elif op == "close":
            self._call.say("close")

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view and not self._is_output_closed:
                view = view[os.write(self._output, view) :]
        except BrokenPipeError:  # nobody reads any more, as `close` says next
            self._close_output()

    def _close_output(self) -> None:
        if not self._is_output_closed:
            self._is_output_closed = True
            os.close(self._output)

    def _end_input(self) -> None:
        """Whoever writes to it learns that nobody reads."""
        with contextlib.suppress(OSError):  # closed already
            self._given.shutdown(socket.SHUT_RDWR)
