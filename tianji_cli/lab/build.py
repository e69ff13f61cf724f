"""Building a lab: files, networks, disks, hosts. Whatever fails, nothing stays."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from engine.errors import ConfigError, PreflightError
from tianji_cli.lab import hosts, network, texts
from tianji_cli.lab.cgroups import make_groups, plan_freezer
from tianji_cli.lab.network import Command, Methods
from tianji_cli.lab.plan import (
    NUM_SUBNETS,
    HostPlan,
    LabPaths,
    LabPlan,
    LabRequest,
    check_request,
    must_share,
    outermost,
    plan_lab,
)
from tianji_cli.lab.preflight import (
    check_directory,
    check_machine,
    check_namespaces,
    choose_methods,
)
from tianji_cli.lab.state import LabState, load_state, locked, save_state
from tianji_cli.lab.system import attempt, boot_id, find_program, mount_points, perform, perform_all
from tianji_cli.lab.teardown import take_down

_OWN_DIRECTORIES = ("~/.tianji", "~/.ssh")
"""Never shown to a host: what earlier runs left there, and the user's keys."""


def build(request: LabRequest, directory: Path) -> LabState:
    """Builds a lab and waits until every host answers.

    Raises:
        ConfigError: The request cannot be met, or a lab is up in that directory.
        PreflightError: This machine cannot hold it.
    """
    check_request(request)
    check_machine()
    paths = LabPaths(directory)
    if load_state(paths) is not None:
        raise _is_up(directory)
    check_directory(directory)
    has_clocks = check_namespaces()
    methods = choose_methods(request)
    request = complete(request, directory, mount_points())
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    with locked(directory):
        if load_state(paths) is not None:
            raise _is_up(directory)
        try:
            return _build(request, paths, methods, has_clocks=has_clocks)
        except BaseException:
            take_down(paths)
            raise


def _is_up(directory: Path) -> ConfigError:
    return ConfigError(
        "a lab is up here already", where=str(directory), fix=f"tianji lab down --dir {directory}"
    )


def complete(request: LabRequest, directory: Path, mounts: tuple[str, ...]) -> LabRequest:
    """Fills in the interpreter, what must be hidden, and what must be shared to run it."""
    own = [str(Path(path).expanduser()) for path in _OWN_DIRECTORIES]
    hide = outermost((*request.hide, *own, str(directory)))
    interpreter = tuple({sys.prefix, sys.base_prefix} if not request.python else ())
    needed = [path for path in interpreter if must_share(path, mounts, hide)]
    return msgspec.structs.replace(
        request,
        hide=hide,
        share=outermost((*request.share, *needed)),
        python=request.python or sys.executable,
    )


def _build(request: LabRequest, paths: LabPaths, methods: Methods, *, has_clocks: bool) -> LabState:
    state = _join_networks(request, paths, methods)
    state.has_clocks = has_clocks
    plan = state.plan
    perform_all(network.connect_all(plan))
    perform_all(network.shape_all(plan, methods))
    _filter(plan, methods)
    if state.freezer is not None:
        make_groups(state.freezer, [host.name for host in plan.hosts])
    paths.disks.mkdir()
    paths.logs.mkdir()
    perform(Command(("mount", "-t", "tmpfs", "-o", "mode=700", plan.lab_id, plan.disks)))
    _make_key(paths.key, "tianji-lab")
    with ThreadPoolExecutor(4) as pool:
        lines = list(pool.map(lambda host: prepare_disk(plan, host, paths), plan.hosts))
    paths.known_hosts.write_text("".join(lines), encoding="utf-8")
    paths.inventory.write_text(texts.inventory(plan, paths), encoding="utf-8")
    for host in plan.hosts:
        hosts.launch(state, host, paths)
    for host in plan.hosts:
        hosts.await_ready(state, host, paths)
    state.status = "up"
    save_state(paths, state)
    return state


def _join_networks(request: LabRequest, paths: LabPaths, methods: Methods) -> LabState:
    """Makes the namespaces and the operator's link, whose name reserves a free subnet."""
    lab_id = secrets.token_hex(3)
    state: LabState | None = None
    for subnet in range(NUM_SUBNETS):
        plan = plan_lab(request, paths, lab_id=lab_id, subnet=subnet)
        if Path("/sys/class/net", plan.link).exists() or _is_routed(plan):
            continue
        if state is None:
            state = LabState(
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                boot_id=boot_id(),
                plan=plan,
                methods=methods,
                freezer=plan_freezer(lab_id),
            )
            save_state(paths, state)
            perform_all(network.add_namespaces(plan))
        state.plan = plan
        save_state(paths, state)
        if attempt(network.add_operator_link(plan)).returncode == 0:
            return state
    raise PreflightError(
        "all networks from 10.77.0.0/24 to 10.77.255.0/24 are in use",
        where="this machine",
        fix="take other labs down",
    )


def _is_routed(plan: LabPlan) -> bool:
    """Whether this machine reaches that network already, by something better than a default."""
    routes = perform(Command(("ip", "-o", "route", "show", "to", "match", plan.operator_address)))
    return any(not line.startswith("default") for line in routes.splitlines())


def _filter(plan: LabPlan, methods: Methods) -> None:
    commands = network.filter_all(plan, methods)
    if commands:
        sysctl = ("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
        perform(Command((*network.in_namespace(plan.fabric), *sysctl)))
        perform_all(commands)
    if methods.loss in ("netem", "iptables") and find_program("ethtool"):
        perform_all(network.single_packets(plan))


def _make_key(path: Path, comment: str) -> str:
    """Makes an ed25519 key pair; returns the public half."""
    perform(
        Command(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)))
    )
    return path.with_name(f"{path.name}.pub").read_text(encoding="ascii")


def prepare_disk(plan: LabPlan, host: HostPlan, paths: LabPaths) -> str:
    """Fills the upper layer of a host's disk.

    Returns:
        Its line for `known_hosts`.
    """
    disk = Path(host.disk)
    for part in ("upper", "work", "root"):
        (disk / part).mkdir(parents=True)
    upper = disk / "upper"
    upper.chmod(0o755)
    etc = upper / texts.ETC
    copy_parents(upper, "/etc/hosts")
    etc.mkdir(mode=0o755)
    (upper / "etc/hostname").write_text(f"{host.name}\n", encoding="ascii")
    (upper / "etc/hosts").write_text(texts.hosts_table(plan), encoding="ascii")
    (etc / "sshd_config").write_text(texts.sshd_config(host), encoding="ascii")
    shutil.copyfile(paths.public_key, etc / "authorized_keys")
    _unlock_root(upper)
    for path in plan.request.hide:
        hide(upper, path)
    public_key = _make_key(etc / "ssh_host_ed25519_key", host.name)
    return texts.known_hosts_line(host, public_key)


def _unlock_root(upper: Path) -> None:
    try:
        shadow = texts.unlock_root(Path("/etc/shadow").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    if shadow is not None:
        copy = upper / "etc/shadow"
        copy.write_text(shadow, encoding="utf-8")
        copy.chmod(0o600)


def hide(upper: Path, path: str) -> None:
    """Makes a path of this machine not exist in a host: an overlay whiteout in its upper layer."""
    if not os.path.lexists(path):
        return
    copy_parents(upper, path)
    os.mknod(upper / path.lstrip("/"), stat.S_IFCHR, os.makedev(0, 0))


def copy_parents(upper: Path, path: str) -> None:
    """Makes the directories above `path`, with this machine's modes and owners: they win."""
    for parent in reversed(Path(path).parents[:-1]):
        copy = upper / str(parent).lstrip("/")
        if not copy.exists():
            copy.mkdir()
            shutil.copystat(parent, copy)
            os.chown(copy, parent.stat().st_uid, parent.stat().st_gid)
