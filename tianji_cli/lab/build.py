"""Builds a lab: files, networks, disks, hosts. If any step fails, everything is removed."""

from __future__ import annotations

import pwd
import secrets
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from engine.errors import ConfigError, PreflightError
from engine.host.account import home
from tianji_cli.lab import hosts, network, texts
from tianji_cli.lab.cgroups import make_groups, plan_freezer
from tianji_cli.lab.disks import make_key, prepare_disk
from tianji_cli.lab.network import Methods, NetworkCommand
from tianji_cli.lab.plan import (
    NUM_SUBNETS,
    LabPaths,
    LabPlan,
    LabRequest,
    check_request,
    plan_lab,
)
from tianji_cli.lab.preflight import (
    check_directory,
    check_machine,
    check_namespaces,
    check_shared,
)
from tianji_cli.lab.quantities import count
from tianji_cli.lab.shaping import apply_shaping, choose_methods
from tianji_cli.lab.state import LabState, load_state, locked, save_state
from tianji_cli.lab.system import attempt, boot_id, mount_points, perform, perform_all
from tianji_cli.lab.teardown import take_down
from tianji_cli.lab.view import VisibleInterpreter, complete


def build(request: LabRequest, directory: Path) -> LabState:
    """Builds a lab and waits until every host answers.

    Raises:
        ConfigError: The request cannot be met, or a lab is up in that directory.
        PreflightError: This machine cannot hold it.
    """
    check_request(request)
    check_machine()
    paths = LabPaths(directory)
    _refuse(load_state(paths), directory)
    check_directory(directory)
    check_shared(request.share)
    has_clocks = check_namespaces()
    methods = choose_methods(request)
    request = complete(
        request,
        str(directory),
        mounts=mount_points(),
        homes=(pwd.getpwuid(0).pw_dir, str(home() or "/")),
        interpreter=VisibleInterpreter(sys.executable, (sys.prefix, sys.base_prefix)),
    )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    with locked(directory):
        _refuse(load_state(paths), directory)
        try:
            return _build(request, paths, methods, has_clocks=has_clocks)
        except BaseException:
            take_down(paths)
            raise


def _refuse(state: LabState | None, directory: Path) -> None:
    """Raises ConfigError if there is a lab."""
    if state is not None:
        kind = "a lab" if state.status == "up" else "an unfinished lab"
        raise ConfigError(
            f"{kind} of {count(len(state.plan.hosts), 'host')} is running here (started"
            f" {state.created_at})",
            where=str(directory),
            fix=f"tianji lab down --dir {shlex.quote(str(directory))}",
        )


def _build(request: LabRequest, paths: LabPaths, methods: Methods, *, has_clocks: bool) -> LabState:
    state = _join_networks(request, paths, methods)
    state.has_clocks = has_clocks
    plan = state.plan
    perform_all(network.connect_all(plan))
    apply_shaping(state, paths)
    if state.freezer is not None:
        make_groups(state.freezer, [host.name for host in plan.hosts])
    paths.disks.mkdir()
    paths.logs.mkdir()
    perform(NetworkCommand(("mount", "-t", "tmpfs", "-o", "mode=700", plan.lab_id, plan.disks)))
    make_key(paths.key, "tianji-lab")
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
    """Creates the namespaces and the operator's link, whose name reserves a free subnet."""
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
        done = attempt(network.add_operator_link(plan))
        if done.returncode == 0:
            return state
        if "File exists" not in done.stderr:  # else another lab was faster
            raise PreflightError(
                f"no veth link can be made: {done.stderr.strip()}", where="this machine"
            )
    raise PreflightError(
        "all networks from 10.77.0.0/24 to 10.77.255.0/24 are in use",
        where="this machine",
        fix="take other labs down",
    )


def _is_routed(plan: LabPlan) -> bool:
    """Whether this machine already has a route to that network, apart from the default route."""
    routes = perform(
        NetworkCommand(("ip", "-o", "route", "show", "to", "match", plan.operator_address))
    )
    return any(not line.startswith("default") for line in routes.splitlines())
