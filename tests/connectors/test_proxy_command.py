"""A command as the way to a host."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from tianji_cli.connectors.ssh_connect import ProxyCommand


def test_a_command_that_ended_has_its_last_words():
    proxy = ProxyCommand.start("printf 'one\\ntwo\\n' >&2")
    assert proxy.recv(1) == b""
    proxy.close()
    assert proxy.last_words == "two"


def test_two_threads_can_close_it_at_the_same_time():
    """As paramiko's thread does when the connection ends while a command closes it."""
    closers = 4
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(closers) as pool:
            for _ in range(20):
                proxy = ProxyCommand.start("echo no way >&2")
                assert proxy.recv(1) == b"", "it has ended"
                barrier = threading.Barrier(closers)

                def close(proxy: ProxyCommand = proxy, at: threading.Barrier = barrier) -> str:
                    at.wait()
                    proxy.close()
                    return proxy.last_words

                said = [pool.submit(close) for _ in range(closers)]
                assert [future.result() for future in said] == ["no way"] * closers
    finally:
        sys.setswitchinterval(before)
