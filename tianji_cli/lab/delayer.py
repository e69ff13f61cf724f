"""Delays packets in user space where the kernel has no netem. Run as a script, in the fabric.

    python -I delayer.py DELAY_S [--once]

Binds a netfilter queue, says `ready`, and lets every packet go DELAY_S after it came. Only packet
numbers come here, the packets stay in the kernel. Standard library only: it is started as a file,
so that it imports nothing of TianJi. `--once` ends after `ready`, to find out whether it can work.

Formats: linux/netfilter/nfnetlink_queue.h. Every message is a netlink header, an nfgenmsg header
and attributes, each a 16-bit length, a 16-bit type and a value padded to 4 bytes.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

QUEUE = 0
_NETLINK_NETFILTER = 12
_SO_RCVBUFFORCE, _SOL_NETLINK, _NETLINK_NO_ENOBUFS = 33, 270, 5
_BUFFER_BYTES = 16 << 20
_SUBSYSTEM = 3 << 8
_PACKET, _VERDICT, _CONFIG = _SUBSYSTEM | 0, _SUBSYSTEM | 1, _SUBSYSTEM | 2
_REQUEST, _REQUEST_AND_ACK = 1, 5
_ACCEPT = 1
_QUEUE_PACKETS = 100_000
_FAIL_OPEN_AND_GSO = 0b101
_HEADERS_BYTES = 20
_NICENESS = -15
"""Raised priority: every packet waits for this process, so it must not wait for the senders."""


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def message(kind: int, body: bytes, flags: int) -> bytes:
    """One netlink message for the queue."""
    length = _HEADERS_BYTES + len(body)
    netlink = struct.pack("=IHHII", length, kind, flags, 0, 0)
    return netlink + struct.pack("=BBH", 0, 0, socket.htons(QUEUE)) + body


def verdict(packet: int) -> bytes:
    """Releases a packet."""
    return message(_VERDICT, attribute(2, struct.pack(">II", _ACCEPT, packet)), _REQUEST)


def settings() -> Iterator[bytes]:
    """Binds the queue, asks for packet numbers only, and lets packets pass when it overflows."""
    yield attribute(1, struct.pack(">BBH", 1, 0, socket.AF_INET))
    yield attribute(2, struct.pack(">IB", 0, 1))
    yield attribute(3, struct.pack(">I", _QUEUE_PACKETS))
    flags = struct.pack(">I", _FAIL_OPEN_AND_GSO)
    yield attribute(4, flags) + attribute(5, flags)


def packet_numbers(data: bytes) -> Iterator[int]:
    """The numbers of the packets announced by messages."""
    start = 0
    while start + _HEADERS_BYTES <= len(data):
        length, kind = struct.unpack_from("=IH", data, start)
        if length < _HEADERS_BYTES:
            return
        place = start + _HEADERS_BYTES
        while kind == _PACKET and place + 8 <= start + length:
            size, name = struct.unpack_from("=HH", data, place)
            if name & 0x7FFF == 1:
                yield struct.unpack_from(">I", data, place + 4)[0]
                break
            place += max(4, size + -size % 4)
        start += length + -length % 4


def open_queue() -> socket.socket:
    """Binds the queue; OSError if the kernel cannot."""
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    link.bind((0, 0))
    link.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    link.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
    for body in settings():
        link.send(message(_CONFIG, body, _REQUEST_AND_ACK))
        code: int = struct.unpack_from("=i", link.recv(65536), 16)[0]
        if code:
            raise OSError(-code, "the netfilter queue cannot be set up")
    link.setblocking(False)
    return link


def run(link: socket.socket, delay_s: float) -> None:
    """Delays packets until the process is ended. All wait equally long: the oldest goes first."""
    waiting: deque[tuple[float, int]] = deque()
    while True:
        now_s = time.monotonic()
        while waiting and waiting[0][0] <= now_s:
            link.send(verdict(waiting.popleft()[1]))
        left_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        if not select.select([link], [], [], left_s)[0]:
            continue
        due_s = time.monotonic() + delay_s
        try:
            data = link.recv(1 << 20)
        except BlockingIOError:
            continue
        waiting.extend((due_s, number) for number in packet_numbers(data))


def main() -> None:
    link = open_queue()
    with suppress(PermissionError):
        os.nice(_NICENESS)
    print("ready", flush=True)
    if "--once" not in sys.argv:
        run(link, float(sys.argv[1]))


if __name__ == "__main__":
    main()
