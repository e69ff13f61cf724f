"""The lab as a class, for tests and for `tianji lab`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import msgspec

from engine.errors import ConfigError
from tianji_cli.lab import cgroups, disks, hosts, network
from tianji_cli.lab.build import build
from tianji_cli.lab.plan import HostPlan, LabPaths, LabRequest
from tianji_cli.lab.processes import HostProcess, inhabitants, read_table
from tianji_cli.lab.quantities import parse_delay, parse_loss, parse_rate, parse_size
from tianji_cli.lab.state import LabState, load_state, locked, require_state
from tianji_cli.lab.system import perform, require_program
from tianji_cli.lab.teardown import take_down

DEFAULT_DIRECTORY = Path("~/.tianji/lab")
DEFAULT_EXEC_TIMEOUT_S = 60.0

HostState = Literal["up", "cut", "frozen", "dead"]


_CHANGES: Mapping[str, Callable[[LabState, HostPlan], None]] = {
    "kill": hosts.kill,
    "crash": hosts.crash,
    "cut": hosts.cut,
    "heal": hosts.heal,
}


class HostStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One host as it is now.

    Attributes:
        state: The worst state that applies: dead, frozen, cut, up.
        is_cut: A dead or frozen host may be cut as well.
        is_full: Its disk is full.
        num_processes: Processes in it, without sshd.
    """

    name: str
    address: str
    ssh_port: int
    state: HostState
    is_cut: bool
    is_full: bool
    num_processes: int


class Lab:
    """A throw-away cluster of real sshd hosts on this machine.

    As a context manager, it takes the lab down at the end of the block.

    Args:
        directory: Of a lab that is up.

    Raises:
        ConfigError: No lab is up there.
    """

    def __init__(self, directory: Path) -> None:
        self.paths = LabPaths(directory)
        require_state(self.paths)

    @classmethod
    def up(
        cls,
        *,
        hosts: int = 8,
        rate: str = "1gbit",
        delay: str = "off",
        loss: str = "off",
        directory: Path = DEFAULT_DIRECTORY,
        hide: Sequence[Path] = (),
        share: Sequence[Path] = (),
    ) -> Lab:
        """Builds a lab and waits until every host answers.

        Args:
            hosts: How many: `tj1`, `tj2`, ...
            rate: Of each host's link, both ways: `1gbit`, `100mbit`, `off`.
            delay: What every packet that leaves a host waits: `0.2ms`, `off`.
            loss: Per cent of the packets leaving a host that are lost: `1`, `0.1%`, `off`.
            directory: For its files; must be empty or absent, and is removed with the lab.
            hide: Directories of this machine that the hosts must not have.
            share: Directories that they see, read-only, as they are here.

        Raises:
            ConfigError: The request cannot be met, or a lab is up in that directory.
            PreflightError: This machine cannot hold a lab; says what is missing.
        """
        request = LabRequest(
            num_hosts=hosts,
            rate_bits_per_s=parse_rate(rate),
            delay_s=parse_delay(delay),
            loss=parse_loss(loss),
            hide=tuple(str(absolute(path)) for path in hide),
            share=tuple(str(absolute(path)) for path in share),
        )
        place = absolute(directory)
        build(request, place)
        return cls(place)

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    @property
    def inventory(self) -> Path:
        """The inventory file of all hosts."""
        return self.paths.inventory

    @property
    def hosts(self) -> tuple[HostPlan, ...]:
        return self.load().plan.hosts

    def load(self) -> LabState:
        """The state file as it is now; ConfigError if the lab is down."""
        return require_state(self.paths)

    def exec(
        self, host: str, argv: Sequence[str], *, timeout_s: float = DEFAULT_EXEC_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program inside a host, as root, without ssh.

        It is killed with the host, but not frozen with it, so that a frozen host can be inspected.

        Raises:
            ConfigError: The host is dead.
            subprocess.TimeoutExpired: It took longer than `timeout_s`.
        """
        state = self.load()
        plan = state.plan.host(host)
        init = hosts.require_running(state, plan)
        return subprocess.run(
            [require_program("nsenter"), "--target", str(init.pid), "--all", "--", *argv],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            env=hosts.ENVIRONMENT,
            check=False,
        )

    def processes(self, host: str) -> list[HostProcess]:
        """`(pid, command)` of the processes in a host, without sshd, with the host's pids."""
        state = self.load()
        init = hosts.running_init(state, state.plan.host(host))
        rows = inhabitants(init, read_table()) if init else []
        return [
            HostProcess(row.inner_pid, row.command)
            for row in rows
            if not row.name.startswith("sshd")
        ]

    def kill(self, host: str) -> None:
        """Kills every process of a host at once, as a crash of its kernel would; the disk stays."""
        self._change(host, "kill")

    def crash(self, host: str) -> None:
        """Cuts a host's power: as `kill`, but peers get no notice; `start` reconnects it."""
        self._change(host, "crash")

    def start(self, host: str) -> None:
        """Starts a dead host again: same address, keys and disk. A running one is left alone."""
        self._change(host, "start")

    def cut(self, host: str) -> None:
        """Unplugs a host: its packets are dropped silently."""
        self._change(host, "cut")

    def heal(self, host: str) -> None:
        """Plugs a host in again."""
        self._change(host, "heal")

    def freeze(self, host: str) -> None:
        """Stops every process of a host; its kernel still accepts connections."""
        self._change(host, "freeze")

    def thaw(self, host: str) -> None:
        """Resumes a frozen host."""
        self._change(host, "thaw")

    def fill(self, host: str, *, leave: str = "0") -> None:
        """Fills a host's disk, but leaves `leave` (such as `8mib`) free; takes no memory here."""
        leave_bytes = parse_size(leave)
        with locked(self.paths.directory):
            disks.fill(self.load().plan.host(host), leave_bytes)

    def free(self, host: str) -> None:
        """Undoes `fill`."""
        with locked(self.paths.directory):
            disks.free(self.load().plan.host(host))

    def _change(
        self, host: str, verb: Literal["kill", "crash", "start", "cut", "heal", "freeze", "thaw"]
    ) -> None:
        with locked(self.paths.directory):
            state = self.load()
            plan = state.plan.host(host)
            if verb == "start":
                hosts.start(state, plan, self.paths)
            elif verb in ("freeze", "thaw"):
                hosts.freeze(state, plan, verb == "freeze")
            else:
                _CHANGES[verb](state, plan)

    def status(self) -> list[HostStatus]:
        """Current state of every host."""
        state = self.load()
        plugged = network.plugged_ports(perform(network.list_ports(state.plan)))
        return [self._status(state, host, plugged) for host in state.plan.hosts]

    def _status(self, state: LabState, host: HostPlan, plugged: frozenset[str]) -> HostStatus:
        is_cut = host.bridge_port not in plugged
        word: HostState = "cut" if is_cut else "up"
        if hosts.running_init(state, host) is None:
            word = "dead"
        elif state.freezer is not None and cgroups.frozen(state.freezer, host.name):
            word = "frozen"
        return HostStatus(
            name=host.name,
            address=host.address,
            ssh_port=host.ssh_port,
            state=word,
            is_cut=is_cut,
            is_full=disks.is_full(host),
            num_processes=len(self.processes(host.name)),
        )

    def down(self) -> None:
        """Takes the lab down and removes its directory; a second call does nothing.

        Raises:
            CleanupError: Something is left; named.
        """
        down(self.paths.directory)


def down(directory: Path) -> LabState | None:
    """Takes down the lab in a directory, if there is one; see `take_down`."""
    place = absolute(directory)
    if not place.is_dir():
        return None
    with locked(place):
        return take_down(LabPaths(place))


def is_up(directory: Path) -> bool:
    """Whether a state file exists."""
    return load_state(LabPaths(absolute(directory))) is not None


def absolute(path: Path) -> Path:
    """Resolves `~`, `..` and symbolic links; ConfigError if `~` has no home directory."""
    try:
        return path.expanduser().resolve()
    except RuntimeError as error:
        raise ConfigError(str(error), where=str(path)) from error
