"""News of a connection to another host, and how long it has had something to send: the kernel's own
measurement.

TCP counts the time in which something that was sent has not arrived yet (`tcpi_busy_time`, Linux
4.10), without the time in which the receiver was what it waited for.
"""

from __future__ import annotations

import socket
import struct

import zmq
from zmq.utils.monitor import recv_monitor_message

_INFO_BYTES = 192
_BUSY_AT = 168
"""`struct tcp_info`: busy and receiver-limited time in microseconds, 64 bits each."""
_TIMES = struct.Struct("=QQ")


class LinkMeter:
    """Of one socket that connects; made before it does.

    Args:
        client: The socket.

    Attributes:
        monitor: Can be read when `heed` is due. Nothing in the process is sent any more once some
            thousand events wait there.
    """

    def __init__(self, client: zmq.Socket[bytes]) -> None:
        self._client = client
        # not EVENT_CLOSED: each attempt to connect that fails makes one
        events = zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
        self.monitor = client.get_monitor_socket(events)
        self._fd: int | None = None

    def close(self) -> None:
        """Before the socket is closed."""
        self._client.disable_monitor()
        self.monitor.close(0)

    def heed(self) -> bool:
        """Takes the news of the connection; whether it was made, or made again."""
        is_made = False
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor)
            if event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                is_made = True
            else:
                self._fd = event["value"] if event["event"] == zmq.EVENT_CONNECTED else None
        return is_made

    def busy_s(self) -> float | None:
        """Seconds since the connection was made in which it was busy, as far as it was heeded; None
        if there is none, or if the kernel does not say."""
        if self._fd is None:
            return None
        try:
            return _busy_s(self._fd)
        except OSError:
            return None


def _busy_s(fd: int) -> float | None:
    """Of a connection that ZeroMQ owns. If it was closed a moment ago, the number can be that of
    another file: that gives an error, or one wrong time."""
    view = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        info = view.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    finally:
        view.detach()
    if len(info) < _BUSY_AT + _TIMES.size:
        return None
    busy_us, limited_by_receiver_us = _TIMES.unpack_from(info, _BUSY_AT)
    return float(max(0, busy_us - limited_by_receiver_us)) / 1e6
