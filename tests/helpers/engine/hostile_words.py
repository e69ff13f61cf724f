"""What strangers say to a port of a run, and whether they are hung up on."""

from __future__ import annotations

import random
import socket


def greeting(mechanism: bytes, *, version: int = 3) -> bytes:
    """What every ZMTP connection begins with."""
    signature = b"\xff" + b"\0" * 8 + b"\x7f"
    return signature + bytes([version, 0]) + mechanism.ljust(20, b"\0") + b"\0" * 32


def noise(seed: int) -> bytes:
    """Random bytes, long enough that nothing waits for more of a greeting."""
    return b"\x00" + random.Random(seed).randbytes(4096)


LARGE = b"\x06" + (2**62).to_bytes(8, "big")
"""A command frame that announces four exabytes."""
WORDS = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b" " * 64,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x07" * 120,
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n" + b"\0" * 64,
    "random bytes 1": noise(1),
    "random bytes 2": noise(2),
    "ZMTP without keys": greeting(b"NULL") + b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER",
    "ZMTP with a password": greeting(b"PLAIN") + b"\x04\x0c\x05HELLO\x01a\x01b",
    "ZMTP of another version": greeting(b"PLAIN", version=1) + b"\0" * 64,
    "ZMTP with keys of its own": greeting(b"CURVE") + b"\x04\x10" + b"\x05HELLO" + b"\x09" * 10,
    "PLAIN, then nonsense": greeting(b"PLAIN") + b"\x04\x10" + b"\x05HELLO" + b"\x09" * 10,
    "PLAIN, then a frame too large": greeting(b"PLAIN") + LARGE + b"\x05HELLO" + b"\0" * 64,
}


def is_closed(stranger: socket.socket) -> bool:
    """Reads until the server hangs up; what it says before is its own greeting."""
    try:
        while stranger.recv(4096):
            continue
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True
