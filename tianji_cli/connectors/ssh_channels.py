"""Gives a script to a login shell over a channel, and reads what it says until a deadline."""

from __future__ import annotations

import contextlib
import select
import time

import paramiko  # noqa: TID253 - this module is only imported for hosts behind SSH

from tianji_cli.connectors.remote_shell import (
    LOGIN_LINE,
    begins,
)

READ_BYTES = 1 << 16
SEND_BYTES = 1 << 18


def begin_script(
    channel: paramiko.Channel, script: bytes, mark: str, deadline_s: float
) -> bytes | None:
    """Starts `sh` and gives it a script; returns what was said when the mark has come, or when the
    channel has ended. None if neither happens in time."""
    channel.exec_command(LOGIN_LINE)
    channel.settimeout(max(0.1, deadline_s - time.monotonic()))
    with contextlib.suppress(OSError):  # a shell that ended at once: its output is read below
        channel.sendall(script)
    said = bytearray()
    while begins(bytes(said), mark) is None:
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0:
            return None
        channel.settimeout(remaining_s)
        try:
            data = channel.recv(READ_BYTES)
        except TimeoutError:
            return None
        if not data:
            break
        said += data
    return bytes(said)


def talk(
    channel: paramiko.Channel, script: bytes, mark: str, data: bytes, deadline_s: float
) -> tuple[bytes, bytes] | None:
    """Runs a script with input, reading both streams to their end; None if it takes too long."""
    if data:
        said = begin_script(channel, script, mark, deadline_s)
        if said is None:
            return None
        output = bytearray(said)
    else:
        channel.exec_command(LOGIN_LINE)
        channel.settimeout(max(0.1, deadline_s - time.monotonic()))
        output, data = bytearray(), script
    with contextlib.suppress(OSError):  # an early end is explained on its streams
        view = memoryview(data)
        for start in range(0, len(data), SEND_BYTES):
            channel.sendall(bytes(view[start : start + SEND_BYTES]))
        channel.shutdown_write()
    errors = bytearray()
    while not (channel.eof_received or channel.closed) or channel.recv_ready():
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0 or not select.select([channel], [], [], remaining_s)[0]:
            return None
        if channel.recv_ready():
            output += channel.recv(READ_BYTES)
        if channel.recv_stderr_ready():
            errors += channel.recv_stderr(READ_BYTES)
    while channel.recv_stderr_ready():
        errors += channel.recv_stderr(READ_BYTES)
    return bytes(output), bytes(errors)
