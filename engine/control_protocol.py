"""The protocol on standard input and output of a supervisor: one JSON document per line.

The controller (on the user's machine) sends instructions, the supervisor reports. The supervisor
uses the same protocol with its forkserver, the process from which all roles of a host are forked.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from engine.graph.cut import Cut
from engine.messages import HostGone, Message, TrackerFailed
from engine.progress import Progress
from engine.roles.coordinator.totals import RunInfo
from engine.spec import Experiment
from engine.trace.warm_start import SavedTensor, TakenWeights
from engine.wire.keys import KeyPair, Keyring
from engine.wire.learner_ring import RingSeat
from engine.wire.socket_factory import Link
from engine.wire.sockets import Wiring


class Rendezvous(msgspec.Struct, frozen=True, kw_only=True):
    """Where one host's learners meet those that update together with them.

    Attributes:
        learners: Numbers of this host's learners; the first is in the ring if there is one.
        file: Path of the store of this host's learners, in the run's own directory.
        store: If the network is trusted, the endpoint of the store of all learners on all hosts.
        address: If the network is trusted, that of this host, at which learners listen.
    """

    learners: tuple[int, ...]
    file: str
    store: str = ""
    address: str = ""


class CommonSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What all role processes of one host have in common.

    It is sent once. The message for each role does not grow with the number of roles, so a launch
    grows with the number of roles and not with its square.

    Attributes:
        host: Name of the host in the inventory.
        run_dir: The run's directory on that host.
        info: For the summary (coordinator).
        addresses: All roles but the coordinator.
        supervisors: Of all hosts; the first, which is beside the coordinator, shows progress.
        routes: The process that runs each role, where the names differ.
        host_of: Host of each process and supervisor; sent to the coordinator's host only.
        members: Public keys of all processes, if the run uses TCP.
        neighbours: The processes of this host; they share memory.
        rendezvous: Of learners that update together; None if there are none here.
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

    def wiring_of(
        self, worker: WorkerSpec, keys: KeyPair | None = None, listener: int | None = None
    ) -> Wiring:
        """All sockets of a process.

        Args:
            worker: The process.
            keys: Its own, if there is TCP.
            listener: A descriptor that already listens at `worker.bind`.
        """
        return Wiring(
            bind=worker.bind,
            listener=listener,
            links=worker.links,
            routes=self.routes,
            keyring=Keyring(keys, self.members) if keys else None,
            neighbours=self.neighbours,
        )


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One role process.

    Attributes:
        address: Its name.
        roles: Addresses of the roles that it runs.
        bind: Endpoint of its own server socket; empty if no process connects to it.
        links: The servers that it connects to.
        ring: Its place in the ring of learners on several hosts, if it is in it.
        store: Endpoint of `Rendezvous.store`, if this process serves it.
        epoch: Incarnation of this role.
        threads: Of PyTorch's arithmetic.
        cores: Numbers of the cores that it is pinned to; empty: all.
        devices: The device of each of its roles that does not compute on the processor.
    """

    address: str
    roles: tuple[str, ...]
    bind: str = ""
    links: tuple[Link, ...] = ()
    ring: RingSeat | None = None
    store: str = ""
    epoch: int = 0
    threads: int = 1
    cores: tuple[int, ...] = ()
    devices: dict[str, str] = {}

    @property
    def endpoints(self) -> tuple[str, ...]:
        """All at which it listens."""
        of_ring = self.ring.bind if self.ring else ""
        return tuple(filter(None, (self.bind, of_ring, self.store)))


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about a host, and the versions installed there."""

    hostname: str
    os: str
    cpu_model: str
    num_cores: int
    memory_bytes: int
    gpus: list[str]
    versions: dict[str, str]


class Prepare(Message, frozen=True, kw_only=True):
    """Check this experiment here, and prepare to start its roles.

    Attributes:
        cut: How the run is spread over processes.
        run_id, run_dir, attempt: The mark of every process of the run here; the directory need not
            exist yet.
        host: This host's name in the inventory.
        address: The supervisor's own name.
        num_endpoints: Servers that will listen here.
        processes: The role processes that will be started here.
        num_connections: Connections of the server here with most of them.
        listen: Address and half-open range of ports for them; None: Unix sockets.
        listeners: By endpoint, listening descriptors that the forkserver has inherited.
        env: Added to the environment of all roles.
        lease_s: A controller that sends nothing for this long is gone.
        gpus: Those that the inventory gives to the run; None if it does not say.
        max_cores: Most cores that the run may use; None: all.
        cores_needed: Measure idle cores if the run may use at least this many; None: do not.
        module_directories: Directories of the user's own modules on this host.
        init_weights: The network's tensors in the checkpoint that the run takes weights from.
    """

    experiment: Experiment
    cut: Cut
    run_id: str
    run_dir: str
    host: str
    attempt: str = ""
    address: str = ""
    num_endpoints: int = 0
    processes: tuple[str, ...] = ()
    num_connections: int = 0
    listen: tuple[str, int, int] | None = None
    listeners: dict[str, int] = msgspec.field(default_factory=dict)
    env: dict[str, str] = msgspec.field(default_factory=dict)
    lease_s: float | None = None
    gpus: tuple[int, ...] | None = None
    max_cores: int | None = None
    cores_needed: int | None = None
    module_directories: tuple[str, ...] = ()
    init_weights: dict[str, SavedTensor] | None = None


class Launch(Message, frozen=True, kw_only=True):
    """Start these roles; `coordinator` is the supervisor's own connection. Keys are public ones."""

    coordinator: Link
    common: CommonSpec
    workers: tuple[WorkerSpec, ...]


class Ping(Message, frozen=True, kw_only=True):
    """Answer with `Pong` at once."""

    number: int


class Beat(Message, frozen=True, kw_only=True):
    """The controller is still there."""


class Detach(Message, frozen=True, kw_only=True):
    """Continue without a controller: from now on SIGTERM requests a stop of the run."""


class Introduce(Message, frozen=True, kw_only=True):
    """Supervisor to forkserver, before the first `Spawn`: what all roles have in common."""

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
    """Kill the run."""


class Hello(Message, frozen=True, kw_only=True):
    """A supervisor's first message, understood by every release."""

    protocol: int
    python: str
    tianji: str


class Pong(Message, frozen=True, kw_only=True):
    """The times at which the `Ping` of that number was read, on this host's clocks."""

    number: int
    monotonic_ns: int
    unix_ns: int


class Prepared(Message, frozen=True, kw_only=True):
    """The experiment can run here.

    `endpoints` are free for its servers; fused loops are assigned to `devices`; it may use `cores`,
    of which `idle_cores` were idle, if that was requested. `notes` are warnings for the user.
    `public_keys` are those of the supervisor and of `Prepare.processes`, if there is TCP; secret
    ones stay here. `taken` says which of the weights in `Prepare.init_weights` fit.
    """

    facts: HostFacts
    cores: tuple[int, ...] = ()
    idle_cores: tuple[int, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    notes: tuple[str, ...] = ()
    endpoints: list[str] = msgspec.field(default_factory=list)
    public_keys: dict[str, str] = msgspec.field(default_factory=dict)
    taken: TakenWeights | None = None


class Detached(Message, frozen=True, kw_only=True):
    """The last message before the controller can exit."""


class Refused(Message, frozen=True, kw_only=True):
    """The experiment cannot run here, for the reason of a `TianJiError`."""

    exit_code: int
    what: str
    where: str
    fix: str


class Spawned(Message, frozen=True, kw_only=True):
    """A role process runs; `started_at_s` (Unix time) distinguishes reused pids."""

    address: str
    pid: int
    started_at_s: float


class Exited(Message, frozen=True, kw_only=True):
    """A role process is gone."""

    address: str
    cause: str
    is_clean: bool


class Shown(Message, frozen=True, kw_only=True):
    """The run's progress."""

    progress: Progress


class Failed(Message, frozen=True, kw_only=True):
    """A role ended unexpectedly; sent in the order of events.

    Attributes:
        is_survived: The role was started again since, so it did not end the run.
    """

    address: str
    cause: str
    log_tail: list[str]
    host: str = ""
    is_survived: bool = False


def survived(failures: list[Failed], address: str) -> None:
    """Notes in place that a role with failures was started again."""
    for index, failed in enumerate(failures):
        if failed.address == address and not failed.is_survived:
            failures[index] = msgspec.structs.replace(failed, is_survived=True)


class Stuck(Message, frozen=True, kw_only=True):
    """A role is alive and does not answer; `stack` is its stack, if it could be read."""

    address: str
    silent_s: float
    state: str
    stack: list[str]


class Finished(Message, frozen=True, kw_only=True):
    """No process of the run is left on this host."""


ToSupervisor: TypeAlias = (
    Prepare | Launch | Ping | Beat | Detach | HostGone | TrackerFailed | StopRun | KillRun
)
FromSupervisor: TypeAlias = (
    Hello | Prepared | Refused | Pong | Spawned | Failed | Stuck | Shown | Detached | Finished
)
ToForkserver: TypeAlias = Prepare | Introduce | Spawn | Signal
FromForkserver: TypeAlias = Prepared | Refused | Spawned | Exited
