"""A worker of the suite as a fork, in place of the program that pytest-xdist starts.

It first leaves a fork of itself from which its tests get TianJi's processes: nothing is read again.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from tests.helpers.warm import server
from tests.helpers.warm.start import WORKER_STARTS


def main() -> None:
    own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        own.close()
        _serve(its)
    its.close()
    server.inherited = own
    sys.argv = ["-c"]
    exec(WORKER_STARTS[-1], {"__name__": "__main__"})


def _serve(asking: socket.socket) -> None:
    """Holds nothing of the worker's, whose controller sees by its pipes whether it lives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    try:
        server.serve(asking)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
