"""Starting, killing, cutting, healing and freezing one host of a lab."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from engine.errors import CleanupError, ConfigError, PreflightError, RunFailedError
from engine.host.process_identity import await_end, is_alive
from tianji_cli.lab import cgroups, network
from tianji_cli.lab.network import NetworkCommand
from tianji_cli.lab.plan import HostPlan, LabPaths
from tianji_cli.lab.preflight import NAMESPACES
from tianji_cli.lab.processes import LabProcessId, child_of, kill_and_reap, reap
from tianji_cli.lab.state import HostProcesses, LabState, save_state
from tianji_cli.lab.system import (
    NETNS_DIRECTORY,
    attempt,
    perform,
    perform_all,
    require_program,
    search_path,
)

START_TIMEOUT_S = 20.0
KILL_TIMEOUT_S = 10.0
LAUNCHER_TIMEOUT_S = 2.0
_PROBE_TIMEOUT_S = 0.5
_PROBE_PAUSE_S = 0.01
DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""Python ignores the first, and its parent can ignore others; a host inherits none of that."""

_SCRIPTS = Path(__file__).parent
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
"""The environment of a host's first process, and of processes that enter the host."""


def start(state: LabState, host: HostPlan, paths: LabPaths) -> None:
    """Starts a dead host and waits until it answers; a running one is left alone.

    A host that was killed while cut is still cut; one that had lost power is reconnected.

    Raises:
        PreflightError: It did not come up.
    """
    if running_init(state, host) is not None:
        return
    kill(state, host)  # a launcher whose command was interrupted
    if not (NETNS_DIRECTORY / host.netns).exists():
        perform(network.add_namespace(host.netns))
        perform_all(network.connect_host(state.plan, host))
        perform_all(network.shape(state.plan, state.methods, [host]))
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
        setsigmask=[],
        setsigdef=DEFAULT_SIGNALS,
    )
    launcher = LabProcessId.of(pid)
    if launcher is None:
        reap(pid)
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
    """Waits until the host's sshd answers (a cut one: listens), then records it.

    Raises:
        PreflightError: The host ended instead; the last lines of its log are in the error.
    """
    deadline_s = time.monotonic() + START_TIMEOUT_S
    launcher = state.hosts[host.name].launcher
    is_ready = _answers if is_plugged(state, host) else _listens
    while not is_ready(host):
        reap(launcher.pid)
        if not is_alive(launcher) or time.monotonic() > deadline_s:
            raise _failed(host)
        time.sleep(_PROBE_PAUSE_S)
    init = child_of(launcher)
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


def _listens(host: HostPlan) -> bool:
    """As `_answers`, for a host that cannot be reached: asks its own kernel."""
    sockets = ("ss", "--no-header", "--listening", "--tcp", "--numeric")
    command = NetworkCommand((*network.in_namespace(host.netns), *sockets))
    return f"{host.address}:{host.ssh_port}" in attempt(command).stdout.split()


def _failed(host: HostPlan) -> PreflightError:
    try:
        lines = Path(host.log).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said = "; ".join(lines[-4:]) or "it said nothing"
    return PreflightError(f"the host did not come up: {said}", where=host.name)


def running_init(state: LabState, host: HostPlan) -> LabProcessId | None:
    """The first process of a running host; None if the host is dead."""
    processes = state.hosts.get(host.name)
    init = processes.init if processes else None
    return init if init is not None and is_alive(init) else None


def require_running(state: LabState, host: HostPlan) -> LabProcessId:
    """As `running_init`, but a dead host is a ConfigError."""
    init = running_init(state, host)
    if init is None:
        raise ConfigError("the host is dead", where=host.name, fix=f"tianji lab start {host.name}")
    return init


def kill(state: LabState, host: HostPlan) -> None:
    """SIGKILLs all processes of a host, as a crash of its kernel would; its disk stays.

    Raises:
        CleanupError: Something is left after 10 s.
    """
    left = end_processes(state, host.name)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise CleanupError(f"processes are left: {pids}", where=host.name)


def end_processes(state: LabState, name: str) -> list[LabProcessId]:
    """Kills a host's first process; the kernel then ends all others in it.

    The launcher then reaps it and ends by itself; otherwise the launcher is killed.

    Returns:
        Those of the two that still exist after 10 s.
    """
    processes = state.hosts.get(name)
    if processes is None:
        return []
    init = processes.init or child_of(processes.launcher)
    is_version_1 = state.freezer is not None and state.freezer.version == 1
    if is_version_1:
        _thaw(state, name)  # a frozen process of version 1 does not even die
    if init is not None:
        left = kill_and_reap([init], KILL_TIMEOUT_S)
        if left:
            return left
        _thaw(state, name)
        await_end([processes.launcher], LAUNCHER_TIMEOUT_S)
    return kill_and_reap([processes.launcher], KILL_TIMEOUT_S)


def _thaw(state: LabState, name: str) -> None:
    if state.freezer is not None and state.freezer.group(name).is_dir():
        cgroups.set_frozen(state.freezer, name, False)


def crash(state: LabState, host: HostPlan) -> None:
    """Cuts a host's power: peers get no notice, and its connections are lost.

    Its network namespace is removed too, or its kernel would close the connections later.

    Raises:
        CleanupError: Something is left after 10 s.
    """
    if (NETNS_DIRECTORY / host.netns).exists():
        perform(network.disconnect_host(state.plan, host))
        kill(state, host)
        perform(network.remove_namespace(host.netns))


def is_plugged(state: LabState, host: HostPlan) -> bool:
    """Whether a host's cable is attached to the bridge."""
    return host.bridge_port in network.plugged_ports(perform(network.list_ports(state.plan)))


def cut(state: LabState, host: HostPlan) -> None:
    """Drops all packets from and to the host, silently. ConfigError if it has no power."""
    _require_power(host)
    perform(network.cut(state.plan, host))


def heal(state: LabState, host: HostPlan) -> None:
    """Undoes `cut`; open connections resume. ConfigError if it has no power."""
    _require_power(host)
    perform(network.heal(state.plan, host))


def _require_power(host: HostPlan) -> None:
    if not (NETNS_DIRECTORY / host.netns).exists():
        raise ConfigError(
            "the host has no power", where=host.name, fix=f"tianji lab start {host.name}"
        )


def freeze(state: LabState, host: HostPlan, is_frozen: bool) -> None:
    """Stops or continues every process of a host.

    Raises:
        PreflightError: This machine has no usable freezer control group.
        RunFailedError: It did not take effect in time.
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
