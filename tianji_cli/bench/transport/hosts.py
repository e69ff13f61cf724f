"""Between hosts: the receiver on the first, senders on the others in turn. No terminal here.

Programs get their job, keys included, over standard input, and end when it does.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

import msgspec

from engine.errors import ConfigError, PreflightError
from engine.wire.keys import make_keyrings
from tianji_cli.bench.child import with_last_lines
from tianji_cli.bench.transport.methods import METHODS, PROGRAMS, Method
from tianji_cli.bench.transport.records import TransportCell, TransportManifest, TransportResult
from tianji_cli.bench.transport.run_cell import (
    LAUNCH_S,
    SIZE_S,
    CellFailedError,
    conclude,
    make_job,
)
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import Connection, Node
from tianji_cli.provisioning.bundle import make_bundle, pinned_constraints, source_root
from tianji_cli.provisioning.environment import find_interpreter
from tianji_cli.provisioning.reachability import endpoint_text
from tianji_cli.provisioning.reaching import Connect, connect, with_address
from tianji_cli.provisioning.shipping import ship
from tianji_cli.provisioning.verification import look_at_bundle
from tianji_cli.storage.deployment import HostPart

RECEIVER = "buffer-0"
NUM_PORTS = 4
TAKEN = os.strerror(errno.EADDRINUSE)
"""Last output of a receiver that cannot listen."""
DEFAULT_PORTS = (29500, 29600)
PROBE_S = 20.0
END_S = 5.0


class Hosts:
    """Connections to all hosts, with the sources on each. Use as a context manager.

    Args:
        hosts: The receiver's first.
        bench_id: Of the benchmark.
        reach: Makes a connection; tests give their own.

    Attributes:
        versions: By host, of its packages.

    Raises:
        TianJiError: One cannot be reached or prepared.
    """

    def __init__(self, hosts: Sequence[Host], bench_id: str, reach: Connect = connect) -> None:
        self._nodes: list[Node] = []
        self._parts: list[HostPart] = []
        self.versions: dict[str, dict[str, str]] = {}
        try:
            for host in hosts:
                self._add(host, bench_id, reach)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for node in self._nodes:
            node.close()

    def _add(self, host: Host, bench_id: str, reach: Connect) -> None:
        node = reach(host, threading.Event())
        self._nodes.append(node)
        host = with_address(host, node)
        constraints = pinned_constraints()
        interpreter = find_interpreter(node, host, constraints)
        if interpreter.facts.missing:
            damage = f"; its environment is damaged: {interpreter.damage}"
            raise PreflightError(
                f"its Python lacks {', '.join(interpreter.facts.missing)}"
                f"{damage if interpreter.damage else ''}",
                where=host.name,
                fix="tianji up on this host once: it makes the environment",
            )
        self.versions[host.name] = interpreter.facts.versions
        workdir = node.expand(host.workdir)
        bundle = make_bundle(source_root(), constraints)
        source = f"{workdir}/bundles/{bundle.name}"
        if not look_at_bundle(node, interpreter.path, source, bundle).is_sound:
            ship(node, workdir, bundle, bench_id)
        part = HostPart(host=host, python=interpreter.path, source=source, run_dir=source)
        self._parts.append(part)

    def lacks(self, method: Method) -> str:
        """Why this method cannot be measured here; empty if it can."""
        if method.needs != "iperf3":
            return ""
        for node in self._nodes:
            if node.run(["sh", "-c", "command -v iperf3"], PROBE_S).code != 0:
                return f"iperf3 is not installed on {node.name}"
        return ""

    def run_cell(self, manifest: TransportManifest, cell: TransportCell) -> TransportResult:
        """Runs one cell to its end; no process of it is left running.

        If another process has the ports, or takes them at the same moment, the next are tried.
        """
        for address, low in self._places():
            result = self._run_at(manifest, cell, address, low)
            if TAKEN not in result.detail:
                break
        return result

    def _run_at(
        self, manifest: TransportManifest, cell: TransportCell, address: str, low: int
    ) -> TransportResult:
        method = METHODS[cell.method]
        job = make_job(manifest.suite, cell, self._options(method, cell, address, low), "")
        job |= {"control": endpoint_text(address, low), "output": "-"}
        limit_s = LAUNCH_S + SIZE_S * len(manifest.suite.sizes_bytes)
        work = partial(self._transmit, method, cell.senders, job, limit_s)
        result = conclude(manifest, cell, [f"{PROGRAMS}.{method.module}"], work)
        return msgspec.structs.replace(result, versions=self.versions)

    def _places(self) -> list[tuple[str, int]]:
        """The receiver's address, and the first of the four ports of its range."""
        host = self._parts[0].host
        low, end = host.ports or DEFAULT_PORTS
        if end - low < NUM_PORTS:
            raise ConfigError(
                f"{NUM_PORTS} ports are needed", where=host.name, fix="ports: 29500-29599"
            )
        firsts = range(low, end - NUM_PORTS + 1, NUM_PORTS)
        return [(host.address or "127.0.0.1", first) for first in firsts]

    def _options(
        self, method: Method, cell: TransportCell, address: str, low: int
    ) -> dict[str, object]:
        options: dict[str, object] = dict(method.options)
        if method.needs == "iperf3":
            return {**options, "address": address, "port": low + 2}
        options["endpoint"] = f"tcp://{endpoint_text(address, low + 1)}"
        options["single_endpoint"] = f"tcp://{endpoint_text(address, low + 3)}"
        if method.is_encrypted:
            names = [RECEIVER, *(f"actor-{index}" for index in range(cell.senders))]
            options["keyrings"] = make_keyrings(names)
        return options

    def _transmit(
        self, method: Method, senders: int, job: Mapping[str, object], limit_s: float
    ) -> bytes:
        """Output of the end that measures. Raises CellFailedError."""
        is_iperf = method.needs == "iperf3"
        deadline_s = time.monotonic() + limit_s
        programs: list[_Program] = []
        try:
            words = ["serve"] if is_iperf else []
            receiver = self._start(0, method, job, words)
            programs.append(receiver)
            receiver.expect(b"listening", deadline_s)
            for index in range(1 if is_iperf else senders):
                place = 1 + index % (len(self._parts) - 1)
                words = [] if is_iperf else [f"{index}"]
                programs.append(self._start(place, method, job, words))
            return (programs[-1] if is_iperf else receiver).expect(b'{"points"', deadline_s)
        finally:
            for program in programs:
                program.close()

    def _start(
        self, place: int, method: Method, job: Mapping[str, object], words: Sequence[str]
    ) -> _Program:
        node, part = self._nodes[place], self._parts[place]
        command = [part.python, "-u", "-P", "-m", f"{PROGRAMS}.{method.module}", "-", *words]
        connection = node.spawn(command, {"PYTHONPATH": part.source}, directory=part.source)
        return _Program(connection, msgspec.json.encode(job))


class _Program:
    """One end that runs on a host.

    Raises:
        CellFailedError: It has ended already.
    """

    def __init__(self, connection: Connection, job: bytes) -> None:
        self._connection = connection
        self._said = b""
        try:
            os.write(connection.to_supervisor, job + b"\n")
        except OSError:
            failure = self._ended()
            self.close()
            raise failure from None

    def expect(self, beginning: bytes, deadline_s: float) -> bytes:
        """The first line that begins with this text."""
        while True:
            *lines, self._said = self._said.split(b"\n")
            for line in lines:
                if line.startswith(beginning):
                    return line
            wait_s = deadline_s - time.monotonic()
            ready, _, _ = select.select([self._connection.from_supervisor], [], [], max(0, wait_s))
            if not ready:
                raise CellFailedError("it did not end in time")
            data = os.read(self._connection.from_supervisor, 1 << 16)
            if not data:
                raise self._ended()
            self._said += data

    def _ended(self) -> CellFailedError:
        """The error for an early end, with its last output."""
        self._connection.wait(END_S)
        return CellFailedError(with_last_lines("it ended early", self._connection.error_output()))

    def close(self) -> None:
        """Ends it, and closes its descriptors, since many programs are started."""
        self._connection.close_input()
        self._connection.wait(END_S)
        self._connection.close()
