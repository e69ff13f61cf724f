"""Starting, killing, cutting, healing and freezing one host of a lab."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from engine.errors import CleanupError, ConfigError, PreflightError, RunFailedError
from tianji_cli.lab import cgroups, network
from tianji_cli.lab.plan import HostPlan, LabPaths
from tianji_cli.lab.preflight import NAMESPACES
from tianji_cli.lab.processes import (
    ProcessId,
    child_of,
    identify,
    is_alive,
    kill_all,
    read_table,
    reap,
)
from tianji_cli.lab.state import HostProcesses, LabState, save_state
from tianji_cli.lab.system import perform, require_program, search_path

START_TIMEOUT_S = 20.0
KILL_TIMEOUT_S = 10.0
_PROBE_TIMEOUT_S = 0.5
_PROBE_PAUSE_S = 0.01
_SCRIPTS = Path(__file__).parent
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
"""What a host's first process, and whoever enters the host, finds in its environment."""


def start(state: LabState, host: HostPlan, paths: LabPaths) -> None:
    """Starts a dead host and waits until it answers; a running one is left alone.

    Raises:
        PreflightError: It did not come up.
    """
    if running_init(state, host) is None:
        kill(state, host)  # a launcher whose command was interrupted
        launch(state, host, paths)
        await_ready(state, host, paths)


def launch(state: LabState, host: HostPlan, paths: LabPaths) -> None:
    """Starts a host and records its launcher; `await_ready` must follow.

    The launcher outlives this process, and ends when the host does.
    """
    argv = launch_arguments(state, host)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    pid = os.posix_spawn(
        argv[0],
        argv,
        {**ENVIRONMENT, "PATH": search_path()},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, host.log, flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    launcher = identify(pid)
    if launcher is None:
        raise _failed(host)
    state.hosts[host.name] = HostProcesses(launcher=launcher)
    save_state(paths, state)


def launch_arguments(state: LabState, host: HostPlan) -> list[str]:
    """The command line of a host's launcher: cgroup, network namespace, other namespaces, sshd."""
    shell = require_program("sh")
    words = [*network.in_namespace(host.netns), "unshare", *NAMESPACES]
    if state.has_clocks:
        offset = str(host.number * 10_000)
        words += ["--time", "--monotonic", offset, "--boottime", offset]
    words += [shell, str(_SCRIPTS / "host_init.sh"), host.name, host.disk]
    words += [require_program("sshd"), *state.plan.request.share]
    if state.freezer is None:
        return [require_program(words[0]), *words[1:]]
    group = state.freezer.group(host.name)
    return [shell, str(_SCRIPTS / "join_cgroup.sh"), str(group), *words]


def await_ready(state: LabState, host: HostPlan, paths: LabPaths) -> None:
    """Waits until the host's sshd answers, then records it.

    Raises:
        PreflightError: The host ended instead; the last lines of its log are in the error.
    """
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not _answers(host):
        launcher = state.hosts[host.name].launcher
        reap(launcher.pid)
        if not is_alive(launcher) or time.monotonic() > deadline_s:
            raise _failed(host)
        time.sleep(_PROBE_PAUSE_S)
    launcher = state.hosts[host.name].launcher
    init = child_of(launcher, read_table())
    if init is None:
        raise _failed(host)
    state.hosts[host.name] = HostProcesses(launcher=launcher, init=init)
    save_state(paths, state)


def _answers(host: HostPlan) -> bool:
    try:
        address = (host.address, host.ssh_port)
        with socket.create_connection(address, timeout=_PROBE_TIMEOUT_S) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _failed(host: HostPlan) -> PreflightError:
    try:
        lines = Path(host.log).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said = "; ".join(lines[-4:]) or "it said nothing"
    return PreflightError(f"the host did not come up: {said}", where=host.name)


def running_init(state: LabState, host: HostPlan) -> ProcessId | None:
    """The first process of a running host; None if the host is dead."""
    processes = state.hosts.get(host.name)
    return processes.init if processes and is_alive(processes.init) else None


def require_running(state: LabState, host: HostPlan) -> ProcessId:
    """As `running_init`, but a dead host is a ConfigError."""
    init = running_init(state, host)
    if init is None:
        raise ConfigError("the host is dead", where=host.name, fix=f"tianji lab start {host.name}")
    return init


def kill(state: LabState, host: HostPlan) -> None:
    """SIGKILLs everything in a host, as its kernel's end would; its disk stays.

    Raises:
        CleanupError: Something is left after 10 s.
    """
    processes = state.hosts.get(host.name)
    if processes is None:
        return
    if state.freezer is not None and state.freezer.version == 1 and is_alive(processes.launcher):
        cgroups.set_frozen(state.freezer, host.name, False)  # else version 1 defers the signal
    left = kill_processes(processes)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise CleanupError(f"processes are left: {pids}", where=host.name)
    if state.freezer is not None:
        cgroups.set_frozen(state.freezer, host.name, False)


def kill_processes(processes: HostProcesses) -> list[ProcessId]:
    """First process first: the kernel ends the rest, and the launcher collects it. Returns rest."""
    if processes.init is not None:
        left = kill_all([processes.init], timeout_s=KILL_TIMEOUT_S)
        if left:
            return left
    return kill_all([processes.launcher], timeout_s=KILL_TIMEOUT_S)


def cut(state: LabState, host: HostPlan) -> None:
    """Packets from and to the host vanish; nobody is told."""
    perform(network.cut(state.plan, host))


def heal(state: LabState, host: HostPlan) -> None:
    """Undoes `cut`; connections that nobody gave up go on."""
    perform(network.heal(state.plan, host))


def freeze(state: LabState, host: HostPlan, is_frozen: bool) -> None:
    """Stops or continues every process of a host.

    Raises:
        PreflightError: This machine has no usable freezer control group.
        RunFailedError: It did not happen in time.
    """
    require_running(state, host)
    if state.freezer is None:
        raise PreflightError(
            "hosts cannot be frozen: no writable freezer control group",
            where="this machine",
            fix="mount cgroup2, or give the container its own cgroup namespace, writable",
        )
    if not cgroups.set_frozen(state.freezer, host.name, is_frozen):
        raise RunFailedError(
            f"the host did not {'freeze' if is_frozen else 'thaw'} in time", where=host.name
        )
