"""The protocol on standard input and output of a supervisor: one JSON document per line.

The controller (where the user sits) instructs, the supervisor reports; the supervisor speaks the
same language to its forkserver, the process that all roles of a host are forked from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Generic, TypeAlias, TypeVar

import msgspec

from engine.graph.cut import Cut
from engine.messages import HostGone, Message
from engine.progress import Progress
from engine.roles.coordinator.totals import RunInfo
from engine.spec import Experiment
from engine.wire.keys import KeyPair, Keyring
from engine.wire.rendezvous import Rendezvous
from engine.wire.socket_factory import Link
from engine.wire.sockets import Wiring


class CommonSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What all role processes of one host have in common.

    It is sent once. What is said of each role does not grow with the number of the others, so a
    launch grows with the number of roles and not with its square.

    Attributes:
        host: Name of the host in the inventory.
        run_dir: The run's directory on that host.
        info: For the summary (coordinator).
        addresses: All roles but the coordinator.
        supervisors: Of all hosts; the first, which is beside the coordinator, shows progress.
        routes: The process that plays each role, where the names differ.
        host_of: Host of each process and supervisor; sent to the coordinator's host only.
        members: Public keys of all processes, if there is TCP.
        neighbours: The processes of this host; they share memory.
        rendezvous: Where learners that update together meet.
        clock_offset_ns: This host's monotonic clock minus that of the coordinator's host.
    """

    host: str
    run_dir: str
    info: RunInfo
    addresses: tuple[str, ...]
    supervisors: tuple[str, ...]
    routes: dict[str, str] = {}
    host_of: dict[str, str] = {}
    members: dict[str, str] = {}
    neighbours: frozenset[str] = frozenset()
    rendezvous: Rendezvous | None = None
    clock_offset_ns: int = 0

    def log_of(self, process: str) -> str:
        """File for the standard output and error of a process."""
        return f"{self.run_dir}/logs/{self.host}/{process}.log"

    def wiring_of(self, worker: WorkerSpec) -> Wiring:
        """All sockets of a process."""
        return Wiring(
            bind=worker.bind,
            listener=worker.listener,
            links=worker.links,
            routes=self.routes,
            keyring=Keyring(worker.keys, self.members) if worker.keys else None,
            neighbours=self.neighbours,
        )


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One role process.

    Attributes:
        address: Its name.
        roles: Addresses of the roles that it plays.
        bind: Endpoint of its own server socket; empty if nobody connects to it.
        listener: What the forkserver has given to it of `Prepare.listeners`.
        links: The servers that it connects to.
        keys: Its own, if there is TCP.
        epoch: Which life of this role.
        threads: Of PyTorch's arithmetic.
        cores: Numbers of the cores that it is kept to; none: it may use all.
    """

    address: str
    roles: tuple[str, ...]
    bind: str = ""
    listener: int | None = None
    links: tuple[Link, ...] = ()
    keys: KeyPair | None = None
    epoch: int = 0
    threads: int = 1
    cores: tuple[int, ...] = ()


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a host is and what is installed there."""

    hostname: str
    os: str
    cpu_model: str
    num_cores: int
    memory_bytes: int
    gpus: list[str]
    versions: dict[str, str]


class Prepare(Message, frozen=True, kw_only=True):
    """Check this experiment here, and make ready to start roles of it.

    Attributes:
        cut: How the run is spread over processes.
        run_id, run_dir, attempt: Mark every process of the run here; the directory may not exist
            yet.
        host: This host's name in the inventory.
        num_endpoints: Servers that will listen here.
        num_processes: Roles that will be started here, together.
        num_connections: Of the server here to which most others connect.
        listen: Address and half-open range of ports for them; None: Unix sockets.
        listeners: By endpoint, descriptors that the forkserver has inherited and that listen there.
        env: Added to the environment of all roles.
        lease_s: The controller sends something at least this often, or is gone.
        gpus: Those that the inventory gives to the run; None if it does not say.
        max_cores: So many cores the run may use; None: all.
        cores_needed: Look for idle cores if the run may use at least so many; None: do not.
        module_directories: Directories of the user's own modules on this host.
    """

    experiment: Experiment
    cut: Cut
    run_id: str
    run_dir: str
    host: str
    attempt: str = ""
    num_endpoints: int = 0
    num_processes: int = 1
    num_connections: int = 0
    listen: tuple[str, int, int] | None = None
    listeners: dict[str, int] = msgspec.field(default_factory=dict)
    env: dict[str, str] = msgspec.field(default_factory=dict)
    lease_s: float | None = None
    gpus: tuple[int, ...] | None = None
    max_cores: int | None = None
    cores_needed: int | None = None
    module_directories: tuple[str, ...] = ()


class Launch(Message, frozen=True, kw_only=True):
    """Start these roles; `wiring` is the supervisor's own way to the coordinator, `address` its own
    name."""

    address: str
    wiring: Wiring
    common: CommonSpec
    workers: tuple[WorkerSpec, ...]


class Ping(Message, frozen=True, kw_only=True):
    """Answer with `Pong` at once."""

    number: int


class Beat(Message, frozen=True, kw_only=True):
    """The controller is still there."""


class Detach(Message, frozen=True, kw_only=True):
    """Go on without a controller: from now on SIGTERM asks for the end of the run."""


class Introduce(Message, frozen=True, kw_only=True):
    """Supervisor to forkserver, before the first `Spawn`: what holds for all roles."""

    common: CommonSpec


class Spawn(Message, frozen=True, kw_only=True):
    """Supervisor to forkserver: start this role."""

    worker: WorkerSpec


class Signal(Message, frozen=True, kw_only=True):
    """Supervisor to forkserver: send a signal to this role, and to its children unless it
    `is_alone`, if it still runs."""

    address: str
    number: int
    is_alone: bool = False


class StopRun(Message, frozen=True, kw_only=True):
    """Stop the run gracefully."""


class KillRun(Message, frozen=True, kw_only=True):
    """End everything now."""


class Hello(Message, frozen=True, kw_only=True):
    """A supervisor's first words, understood by every release."""

    protocol: int
    python: str
    tianji: str


class Pong(Message, frozen=True, kw_only=True):
    """When the `Ping` of that number was read, on this host's clocks."""

    number: int
    monotonic_ns: int
    unix_ns: int


class Prepared(Message, frozen=True, kw_only=True):
    """The experiment can run here.

    `endpoints` are free for its servers; loops that are fused on a device are dealt out to
    `devices`; it may use `cores`, of which `idle_cores` were idle, if that was asked. `notes` are
    words for the user about what may not be as it was meant.
    """

    facts: HostFacts
    cores: tuple[int, ...] = ()
    idle_cores: tuple[int, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    notes: tuple[str, ...] = ()
    endpoints: list[str] = msgspec.field(default_factory=list)


class Detached(Message, frozen=True, kw_only=True):
    """The last message before the controller can exit."""


class Refused(Message, frozen=True, kw_only=True):
    """It cannot, for the reason of a `TianJiError`."""

    exit_code: int
    what: str
    where: str
    fix: str


class Spawned(Message, frozen=True, kw_only=True):
    """A role process runs; `started_at_s` (Unix time) tells it from a later one of the same pid."""

    address: str
    pid: int
    started_at_s: float


class Exited(Message, frozen=True, kw_only=True):
    """A role process is gone."""

    address: str
    cause: str
    is_clean: bool


class Shown(Message, frozen=True, kw_only=True):
    """How far the run is."""

    progress: Progress


class Failed(Message, frozen=True, kw_only=True):
    """A role is gone that should not be; in the order in which it happened."""

    address: str
    cause: str
    log_tail: list[str]
    host: str = ""


class Stuck(Message, frozen=True, kw_only=True):
    """A role lives and does not answer; `stack` is where it is, if it could say so."""

    address: str
    silent_s: float
    state: str
    stack: list[str]


class Finished(Message, frozen=True, kw_only=True):
    """No process of the run is left on this host."""


ToSupervisor: TypeAlias = Prepare | Launch | Ping | Beat | Detach | HostGone | StopRun | KillRun
FromSupervisor: TypeAlias = (
    Hello | Prepared | Refused | Pong | Spawned | Failed | Stuck | Shown | Detached | Finished
)
ToForkserver: TypeAlias = Prepare | Introduce | Spawn | Signal
FromForkserver: TypeAlias = Prepared | Refused | Spawned | Exited

T = TypeVar("T")


class LineReader(Generic[T]):
    """Decodes JSON lines from a file descriptor as they come.

    Args:
        fd: Read without blocking once `read` is called; the caller polls it.
        message_type: What each line must be.
    """

    def __init__(self, fd: int, message_type: object) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.at_end = False
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(message_type)
        self._partial: list[bytes] = []
        """Pieces of the line that has not ended; joined once, however long it gets."""

    def read(self) -> Iterator[T]:
        """All complete lines that are there; sets `at_end` once the writer is gone.

        Raises:
            msgspec.DecodeError: A line is not one of the messages.
        """
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                self.at_end = True
                return
            first, *rest = data.split(b"\n")
            self._partial.append(first)
            for begin in rest:
                line = b"".join(self._partial)
                self._partial = [begin]
                yield self._decoder.decode(line)


def write_line(fd: int, message: Message) -> None:
    """Writes one message; blocks if the reader is slow.

    Raises:
        BrokenPipeError: The reader is gone.
    """
    data = memoryview(msgspec.json.encode(message) + b"\n")
    while data:
        data = data[os.write(fd, data) :]
