"""A driver as the command sees it: a process, and a channel for each host."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence

import msgspec

from engine.errors import DeadlineError, HostUnreachableError, PreflightError
from engine.search_path import module_command, own_path
from tianji_cli.connectors.piped.channel import SILENCE_S
from tianji_cli.connectors.piped.program import KeeperProgram
from tianji_cli.connectors.ray_cluster.identity import MODE, TOKEN_FILE, settle_mode
from tianji_cli.connectors.ray_cluster.orders import (
    DriverFailed,
    Order,
    Placed,
    Report,
    Reservation,
    StreamEnded,
    decode,
)

ANSWER_S = 50.0
"""Time to join the cluster and to place all hosts."""
LOOK_S = 0.1
WORDS_S = 1.0
MAX_ERROR_BYTES = 1 << 12
DRIVER = "tianji_cli.connectors.ray_cluster.driver"


def _await_input(descriptor: int, timeout_s: float | None) -> bool:
    """Waits for input or its end; unlike `select.select`, on descriptors of any number."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


class RayChannel:
    """The bytes of a keeper in an actor, through a socket of the driver.

    Args:
        near: This end.
        driver: The driver.
        number: Of the host's reservation.
    """

    def __init__(self, near: socket.socket, driver: RayDriver, number: int) -> None:
        self._near, self._driver, self._number = near, driver, number
        near.settimeout(SILENCE_S)

    def begin(self, program: KeeperProgram) -> RayChannel:
        """Starts the keeper there, with the Python of the Ray worker."""
        _, *arguments = program.words("")
        self.write(msgspec.json.encode(arguments) + b"\n")
        return self

    def read(self, max_bytes: int) -> bytes:
        _await_input(self._near.fileno(), None)
        data = self._near.recv(max_bytes)
        if not data:
            self._driver.await_end_of(self._number, WORDS_S)
            self._near.close()
        return data

    def write(self, data: bytes) -> None:
        self._near.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self._near.shutdown(socket.SHUT_WR)

    def last_words(self) -> str:
        return self._driver.words_of(self._number)

    def drop(self) -> None:
        """Closes it, unused."""
        self._near.close()


class RayDriver:
    """A driver that was started. It ends when all its channels have, or with this process.

    Args:
        address: Of the cluster.
        reservations: One for each host.
        is_open, is_visit: As in `Order`.
    """

    def __init__(
        self,
        address: str,
        reservations: Sequence[Reservation],
        *,
        is_open: bool,
        is_visit: bool = False,
    ) -> None:
        pairs = [socket.socketpair() for _ in reservations]
        self.channels = [RayChannel(near, self, n) for n, (near, _) in enumerate(pairs)]
        self._address = address
        self._words: dict[int, str] = {}
        self._changed = threading.Condition()
        self._has_ended = False
        order = Order(
            address=address,
            is_open=is_open,
            is_visit=is_visit,
            reservations=tuple(reservations),
            sockets=tuple(far.fileno() for _, far in pairs),
        )
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            self._process = subprocess.Popen(
                module_command(sys.executable, DRIVER),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                pass_fds=order.sockets,
                start_new_session=True,
                env={
                    **os.environ,
                    "PYTHONPATH": own_path(os.environ.get("PYTHONPATH")),
                    MODE: settle_mode(os.environ, os.path.isfile(os.path.expanduser(TOKEN_FILE))),
                },
            )
        except OSError:
            self._errors.close()
            for channel in self.channels:
                channel.drop()
            raise
        finally:
            for _, far in pairs:
                far.close()
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")

    def await_nodes(self, cancel: threading.Event) -> tuple[str, ...]:
        """Waits until all nodes are there.

        Returns:
            Their addresses.

        Raises:
            TianJiError: As the driver says; DeadlineError if it says nothing in time.
        """
        try:
            report = self._first_report(cancel)
            if isinstance(report, DriverFailed):
                raise report.error(f"Ray cluster {self._address}")
            assert isinstance(report, Placed)
        except BaseException:
            self._process.kill()
            self._forget()
            for channel in self.channels:
                channel.drop()
            raise
        threading.Thread(target=self._listen, name="ray driver", daemon=True).start()
        return report.addresses

    def _first_report(self, cancel: threading.Event) -> Report:
        assert self._process.stdout is not None
        until_s, line = time.monotonic() + ANSWER_S, b""
        while not line.endswith(b"\n"):
            if cancel.is_set():
                raise PreflightError("cancelled, because another host failed")
            if time.monotonic() > until_s:
                raise DeadlineError(
                    f"the Ray cluster did not answer within {ANSWER_S:.0f} s",
                    where=self._address,
                    fix="see `ray status` there",
                )
            if _await_input(self._process.stdout.fileno(), LOOK_S):
                data = self._process.stdout.read(1 << 16)
                if not data:
                    raise HostUnreachableError(f"the driver for Ray ended{self._error_lines()}")
                line += data
        return decode(line.partition(b"\n")[0])

    def words_of(self, number: int) -> str:
        """What is known of a host's end."""
        return self._words.get(number, "")

    def await_end_of(self, number: int, timeout_s: float) -> None:
        """Waits until something is known of it."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._words or self._has_ended, timeout_s)

    def _listen(self) -> None:
        """Takes reports until the driver ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            report = decode(line)
            if isinstance(report, StreamEnded):
                with self._changed:
                    self._words[report.number] = report.words
                    self._changed.notify_all()
        reason = f"the driver for Ray ended{self._error_lines()}"
        self._forget()
        with self._changed:
            for number in range(len(self.channels)):
                self._words.setdefault(number, reason)
            self._has_ended = True
            self._changed.notify_all()

    def _forget(self) -> None:
        """It has ended, or is about to."""
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            assert file is not None
            file.close()

    def _error_lines(self) -> str:
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - MAX_ERROR_BYTES))
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return "".join(f"\n    {line}" for line in lines[-10:])
