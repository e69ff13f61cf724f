"""Makes hosts ready for a run, in parallel: connect, verify, ship, environment, start.

Each host has its own thread, a visible phase, and a deadline per phase. Steps that are done already
are skipped. If one host cannot be made ready, nothing is left running on any.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Literal

from engine.errors import DeadlineError, PreflightError, TianJiError, of_machine
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import Connection, Node
from tianji_cli.provisioning.bundle import (
    Bundle,
    make_bundle,
    pack_modules,
    pinned_constraints,
    source_root,
)
from tianji_cli.provisioning.environment import Interpreter, find_interpreter, make_environment
from tianji_cli.provisioning.own_modules import OwnModules
from tianji_cli.provisioning.reaching import Connect, connect, place_of, with_address
from tianji_cli.provisioning.shipping import forget_modules, run_exists, ship, start_supervisor
from tianji_cli.provisioning.verification import look_at_bundle
from tianji_cli.storage.deployment import INSPECTOR, HostPart

Phase = Literal[
    "connect",
    "verify",
    "ship",
    "environment",
    "start",
    "ready",
    "failed",
    "prepare",
    "join",
    "joined",
]
"""Phase of a host: up to `ready` here; later ones belong to its supervisor."""
PHASE_S: Mapping[Phase, float] = {
    "connect": 60.0,
    "verify": 60.0,
    "ship": 120.0,
    "environment": 1000.0,
    "start": 20.0,
}

Watch = Callable[[str, Phase, str], None]


@dataclass(frozen=True)
class ReadyHost:
    """A host that is ready: its supervisor runs and waits for instructions."""

    node: Node
    part: HostPart
    connection: Connection
    module_directories: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProvisionRequest:
    """The request to make hosts ready.

    Attributes:
        run_id: The run.
        local_run_dir: Its directory on hosts that are this machine.
        attempt: Random digits of this `up`; see `engine.host.process_identity.mark`.
        is_automatic: Whether the run's name is automatic, so that a conflict is no reason to stop.
        modules: The user's own modules for the experiment.
    """

    run_id: str
    local_run_dir: str
    attempt: str = ""
    is_automatic: bool = False
    modules: OwnModules = field(default_factory=OwnModules)

    def name_on(self, host: str) -> str:
        """Name of the run's directory there; separate, since hosts can share a home directory."""
        name = f"{self.run_id}@{host}"
        return f"{name}.{self.attempt}" if self.is_automatic else name


class Provisioner:
    """Makes hosts ready, each in its own thread.

    Args:
        request: The run.
        watch: Called with host, phase and a few words, in the thread that calls `provision`.
        reach: Makes a connection; tests give their own.
    """

    def __init__(self, request: ProvisionRequest, watch: Watch, reach: Connect = connect) -> None:
        self._request = request
        self._watch = watch
        self._reach = reach
        self._cancel = threading.Event()
        self._events: SimpleQueue[_Event | None] = SimpleQueue()
        self._nodes: dict[str, Node] = {}
        self._lock = threading.Lock()
        self._constraints = pinned_constraints()
        self._bundle: Bundle | None = None
        self._modules = pack_modules(request.modules.files) if request.modules.files else None

    def interrupt(self) -> None:
        """Wakes `provision` up; safe in a signal handler."""
        self._events.put(None)

    def provision(self, hosts: Sequence[Host]) -> dict[str, ReadyHost]:
        """Makes all hosts ready.

        Raises:
            TianJiError: One failed; the others are as before. If several failed, the error names
                all.
            KeyboardInterrupt: `interrupt` was called.
        """
        for host in hosts:
            threading.Thread(
                target=self._provision, args=(host,), name=f"provision {host.name}", daemon=True
            ).start()
        try:
            return self._gather([host.name for host in hosts])
        except BaseException:
            self._cancel.set()
            with self._lock:
                nodes = list(self._nodes.values())
            for node in nodes:
                node.close()
            raise

    def _gather(self, names: list[str]) -> dict[str, ReadyHost]:
        """Waits for all; after a failure it waits a moment for others, to name them all."""
        ready: dict[str, ReadyHost] = {}
        errors: dict[str, TianJiError] = {}
        phases: dict[str, tuple[Phase, float]] = {
            name: ("connect", time.monotonic() + PHASE_S["connect"]) for name in names
        }
        while set(phases) - set(ready) - set(errors):
            open_phases = {n: p for n, p in phases.items() if n not in ready and n not in errors}
            event = self._next_event(min(end_s for _, end_s in open_phases.values()))
            for name, (phase, end_s) in open_phases.items():
                if time.monotonic() > end_s:
                    limit = f"{PHASE_S[phase]:.0f} s"
                    errors[name] = DeadlineError(f"{phase} took longer than {limit}", where=name)
            if event is None:
                continue
            self._watch(event.host, event.phase, event.detail)
            if event.ready_host is not None:
                ready[event.host] = event.ready_host
            elif event.error is not None:
                errors[event.host] = event.error
            else:
                phases[event.host] = (event.phase, time.monotonic() + PHASE_S[event.phase])
        if errors:
            raise combine(errors, len(names))
        return {name: ready[name] for name in names}

    def _next_event(self, deadline_s: float) -> _Event | None:
        try:
            event = self._events.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except Empty:
            return None
        if event is None:
            raise KeyboardInterrupt
        return event

    def _provision(self, host: Host) -> None:
        """Runs in its own thread."""
        name = host.name
        try:
            ready_host = self._make_ready(host)
        except TianJiError as error:
            where = error.where if name in error.where else f"{name}: {error.where}".rstrip(": ")
            named = type(error)(error.what, where=where, fix=error.fix)
            self._events.put(_Event(name, "failed", error.what, error=named))
        except Exception as error:  # noqa: BLE001 - reported where it can be seen
            what = of_machine(error) or PreflightError(f"{type(error).__name__}: {error}")
            failed = PreflightError(what.what, where=name, fix=what.fix)
            self._events.put(_Event(name, "failed", str(failed), error=failed))
        else:
            self._events.put(_Event(name, "ready", "", ready_host=ready_host))
        if self._cancel.is_set() and name in self._nodes:
            self._nodes[name].close()  # its result is too late

    def _enter(self, host: Host, phase: Phase, detail: str = "") -> None:
        if self._cancel.is_set():
            raise PreflightError("cancelled, because another host failed", where=host.name)
        self._events.put(_Event(host.name, phase, detail))

    def _make_ready(self, host: Host) -> ReadyHost:
        self._enter(host, "connect", place_of(host))
        node = self._reach(host, self._cancel)
        with self._lock:
            self._nodes[host.name] = node
        host = with_address(host, node)
        directories = self._request.modules.directories
        if not node.is_remote:
            part = HostPart(
                host=host,
                python=sys.executable,
                source=str(source_root()),
                run_dir=self._request.local_run_dir,
                inspector=INSPECTOR,
                attempt=self._request.attempt,
            )
        else:
            part = self._equip(host, node)
            directories = self._send_modules(host, node, part.python)
        self._enter(host, "start")
        connection = start_supervisor(node, part, self._request.run_id)
        return ReadyHost(node, part, connection, directories)

    def _equip(self, host: Host, node: Node) -> HostPart:
        self._enter(host, "verify", node.access.endpoint)
        workdir = node.expand(host.workdir)
        interpreter = find_interpreter(node, host, self._constraints)
        run_dir = f"{workdir}/runs/{self._request.name_on(host.name)}"
        if node.exists(run_dir):
            raise run_exists(host.name, run_dir)
        bundle = self._get_bundle()
        source = f"{workdir}/bundles/{bundle.name}"
        held = look_at_bundle(node, interpreter.path, source, bundle)
        self._enter(host, "ship", held.words(bundle.name))
        if not held.is_sound:
            ship(node, workdir, bundle, self._attempt(host))
        python = self._choose_python(host, node, interpreter, workdir, source)
        return HostPart(
            host=host,
            python=python,
            source=source,
            run_dir=run_dir,
            inspector=INSPECTOR,
            attempt=self._request.attempt,
        )

    def _send_modules(self, host: Host, node: Node, python: str) -> tuple[str, ...]:
        """Directory of the user's own modules there."""
        if self._modules is None:
            return ()
        workdir = node.expand(host.workdir)
        place = f"{workdir}/bundles/{self._modules.name}"
        held = look_at_bundle(node, python, place, self._modules)
        if not held.is_sound:
            self._enter(host, "ship", held.words(self._request.modules.words))
            forget_modules(node, workdir)
            ship(node, workdir, self._modules, self._attempt(host))
        return (place,)

    def _choose_python(
        self, host: Host, node: Node, interpreter: Interpreter, workdir: str, source: str
    ) -> str:
        if not interpreter.facts.missing:
            self._enter(host, "environment", interpreter.path)
            return interpreter.path
        missing = ", ".join(interpreter.facts.missing)
        damage = f"is damaged ({interpreter.damage}): made anew" if interpreter.damage else ""
        self._enter(host, "environment", damage or f"lacks {missing}")
        constraints, attempt = self._constraints, self._attempt(host)
        return make_environment(node, interpreter, workdir, source, constraints, attempt)

    def _attempt(self, host: Host) -> str:
        """Marks this host's unfinished files, so that hosts can share a disk."""
        name = f"{self._request.run_id}@{host.name}"
        return f"{name}.{self._request.attempt}" if self._request.attempt else name

    def _get_bundle(self) -> Bundle:
        with self._lock:
            if self._bundle is None:
                self._bundle = make_bundle(source_root(), self._constraints)
            return self._bundle


@dataclass(frozen=True)
class _Event:
    host: str
    phase: Phase
    detail: str
    ready_host: ReadyHost | None = None
    error: TianJiError | None = None


def combine(errors: Mapping[str, TianJiError], num_hosts: int) -> TianJiError:
    """One error for all hosts that failed; the first one determines the exit code."""
    causes = {
        name: error
        for name, error in errors.items()
        if not error.what.startswith("cancelled, as another")
    }
    first = next(iter(causes.values()))
    if len(causes) == 1:
        return first
    if len({error.what for error in causes.values()}) == 1:  # of what they have in common
        return type(first)(first.what, where=", ".join(causes), fix=first.fix)
    others = "".join(f"\n    {error}" for error in causes.values())
    what = f"{len(causes)} of {num_hosts} hosts could not be made ready{others}"
    return type(first)(what, where=", ".join(causes), fix=first.fix)
