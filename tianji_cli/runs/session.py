"""One run on the hosts of its plan, from provisioning to results.

    provision -> prepare -> clocks -> directories -> launch and watch -> collect -> remove

Whatever fails, every host that was reached is released, and leftovers are named.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import msgspec

from engine.errors import CleanupError, PreflightError, TianJiError
from engine.messages import TrackerFailed, index_of, role_of
from engine.progress import Progress, Resumed
from engine.trace.warm_start import TakenWeights, WarmStart
from engine.wording import plural
from tianji_cli.interrupts import Interrupts
from tianji_cli.planning.placement import crowded
from tianji_cli.planning.plan import Plan
from tianji_cli.planning.resources import (
    ProcessResources,
    resources_of,
    with_resources,
    words_of_devices,
)
from tianji_cli.planning.wiring import HostSetup, ways_of, wire
from tianji_cli.provisioning.own_modules import OwnModules, find_modules
from tianji_cli.provisioning.provision import (
    Phase,
    Provisioner,
    ProvisionRequest,
    ReadyHost,
)
from tianji_cli.provisioning.reachability import Reachable, require_ways
from tianji_cli.provisioning.reaching import Connect, connect
from tianji_cli.provisioning.shipping import claim_directory, make_run_directories
from tianji_cli.runs.controller import Controller, HostReady
from tianji_cli.runs.host_control import end_part, remove_part
from tianji_cli.runs.joining import Joining
from tianji_cli.runs.manifest import write_manifest
from tianji_cli.runs.mirror import Mirror, fetch
from tianji_cli.runs.monitor import RunOutcome
from tianji_cli.runs.parallel import in_parallel
from tianji_cli.runs.resume import ResumePoint
from tianji_cli.runs.starting_point import place_copy, ship_copies
from tianji_cli.runs.warm_start import InitialWeights, WeightsSource
from tianji_cli.storage.clock_sync import ClockOffset
from tianji_cli.storage.deployment import Deployment, shares_of, write_deployment
from tianji_cli.storage.run_dir import RunPaths, command_for, make_run_tree, undone_unless_begun
from tianji_cli.storage.takings import Share

CLEAN_S = 30.0
"""Time-out for ending and removing what is left of a run, on all hosts together."""


class RunListener(Protocol):
    """The receiver of a run's progress."""

    def phase(self, host: str, phase: Phase, detail: str) -> None:
        """A host has entered a phase of its provisioning."""
        ...

    def started(self, paths: RunPaths) -> None:
        """The run's directory exists, and its roles are about to start."""
        ...

    def show(self, progress: Progress) -> None:
        """How far the run is."""
        ...

    def note(self, text: str) -> None:
        """A message for the user."""
        ...


@dataclass
class RunSession:
    """A run that is about to start.

    Attributes:
        plan: The plan.
        paths: Its directory: claimed by this command, and empty.
        is_automatic: Whether its name is automatic.
        reach: Makes connections: see `Reach`.
        detaches: Return once training has started.
        resume_point: The checkpoint that it resumes, if any.
        weights_source: Where it takes initial weights from, if it does.
        module_directories: Directories of the user's own modules here.
        notices: Asked with each snapshot of progress what this command knows of the run, for its
            history.
        unclean: Leftovers, added as they are found.
        attempt: Distinguishes its processes from those of another attempt at this directory.
    """

    plan: Plan
    paths: RunPaths
    is_automatic: bool = False
    detaches: bool = False
    reach: Connect = connect
    resume_point: ResumePoint | None = None
    weights_source: WeightsSource | None = None
    module_directories: tuple[str, ...] = ()
    notices: Callable[[], Sequence[TrackerFailed]] = tuple
    unclean: list[str] = field(default_factory=list)
    _missing: dict[str, TianJiError] = field(default_factory=dict)
    """Hosts with missing files, and the reason."""
    _shares: dict[str, Share] = field(default_factory=dict)
    attempt: str = field(default_factory=lambda: secrets.token_hex(6))
    _weights: InitialWeights | None = None
    _claimed: set[str] = field(default_factory=set)
    """Hosts, not this machine, on which the run's directory was made by this attempt."""

    @property
    def run_id(self) -> str:
        return self.paths.run_id

    def check(self, interrupts: Interrupts, listener: RunListener) -> TakenWeights | None:
        """Checks everything that is possible without starting a role; leaves nothing behind.

        Returns:
            The weights of a former run that it would start with, if it is to start with any.

        Raises:
            TianJiError: A check failed.
        """
        ready_hosts = self._provision(interrupts, listener)
        controller = Controller(self.plan, ready_hosts, interrupts)
        try:
            ready = self._prepare(controller, ready_hosts, listener)
            taken = _taken(ready)
            if self.weights_source is not None and taken is not None:
                self.weights_source.check(taken)
            self._try_ways(ready_hosts, ready)
            return taken
        finally:
            self._release(controller, ready_hosts)

    def run(self, interrupts: Interrupts, listener: RunListener) -> RunOutcome:
        """Runs to the end, or until it is detached.

        Raises:
            TianJiError: Nothing was started; or the run was lost, which the error explains.
        """
        ready_hosts = self._provision(interrupts, listener)
        controller = Controller(self.plan, ready_hosts, interrupts)
        outcome = RunOutcome()
        has_started = False
        try:
            ready = self._prepare(controller, ready_hosts, listener)
            if self.weights_source is not None and (taken := _taken(ready)) is not None:
                self._weights = self.weights_source.take(taken)
                for words in self.weights_source.words(taken):
                    listener.note(words)
            self._try_ways(ready_hosts, ready)
            known = {host: len(item.resources.cores) for host, item in ready.items()}
            cores = {host: count for host, count in known.items() if count}
            for warning in crowded(self.plan.placements, cores):
                listener.note(f"over-subscribed: {warning}")
            for words in dict.fromkeys(words for item in ready.values() for words in item.notes):
                listener.note(words)
            offsets = controller.measure_clocks()
            resources = resources_of(
                self.plan, {host: item.resources for host, item in ready.items()}
            )
            for words in words_of_devices(resources, self.plan):
                listener.note(words)
            controller.meanwhile(lambda: self._write_down(ready_hosts, ready, resources, offsets))
            has_started = True
            listener.started(self.paths)
            outcome = self._watch(
                controller, ready_hosts, ready, offsets, resources, listener, interrupts
            )
        finally:
            if outcome.is_detached:
                controller.let_go()
                _close_all(ready_hosts)
                self._note(
                    ready_hosts, listener, "the run continues in the background", is_detached=True
                )
            else:
                self._end(controller, ready_hosts, outcome, has_started, interrupts, listener)
        return outcome

    def _provision(self, interrupts: Interrupts, listener: RunListener) -> dict[str, ReadyHost]:
        order = ProvisionRequest(
            self.run_id,
            str(self.paths.root.absolute()),
            self.attempt,
            self.is_automatic,
            self._own_modules(listener),
        )
        provisioner = Provisioner(order, listener.phase, self.reach)
        interrupts.on_interrupt = provisioner.interrupt
        try:
            return self._with_writers(provisioner.provision(self.plan.hosts))
        finally:
            interrupts.on_interrupt = None

    def _own_modules(self, listener: RunListener) -> OwnModules:
        """The user's modules; read only if another host needs them."""
        remote = [host for host in self.plan.hosts if host.connection != "local"]
        if not remote:
            return OwnModules(self.module_directories)
        modules = find_modules(self.plan.experiment, self.module_directories)
        if modules.problem:
            listener.note(modules.problem)
        elif modules.files:
            hosts = plural(len(remote), "host")
            listener.note(f"own modules for {hosts}: {modules.words}")
        return modules

    def _prepare(
        self, controller: Controller, ready_hosts: Mapping[str, ReadyHost], listener: RunListener
    ) -> dict[str, HostReady]:
        for host in ready_hosts:
            listener.phase(host, "prepare", "")
        source = self.weights_source
        return controller.prepare(self.run_id, source.tensors if source else None)

    def _try_ways(
        self, ready_hosts: Mapping[str, ReadyHost], ready: Mapping[str, HostReady]
    ) -> None:
        """Raises PreflightError if a port is blocked, since roles would never join."""
        wanted = ways_of(self.plan)
        if not wanted:
            return
        hosts = {}
        for name, ready_host in ready_hosts.items():
            host = ready_host.part.host
            if host.ports is not None:  # the same ports, or adjacent ones
                first, end = host.ports
                own = [port_of(endpoint) for endpoint in ready[name].endpoints]
                start = min((port for port in own if first <= port < end), default=first)
                host = msgspec.structs.replace(host, ports=(start, end))
            hosts[name] = Reachable(ready_host.node, host, ready_host.part.python)
        require_ways(hosts, wanted)

    def _write_down(
        self,
        ready_hosts: Mapping[str, ReadyHost],
        ready: Mapping[str, HostReady],
        resources: dict[str, ProcessResources],
        offsets: Mapping[str, ClockOffset],
    ) -> None:
        """Makes the run's directories: from now on the run exists."""
        paths = self.paths
        with ThreadPoolExecutor(max_workers=len(ready_hosts)) as pool:
            list(pool.map(self._claim_on, ready_hosts.values()))
        with undone_unless_begun(paths):
            try:
                make_run_tree(paths, ready_hosts)
                facts = {host: item.facts for host, item in ready.items()}
                plan = self.plan
                write_manifest(
                    paths,
                    plan.experiment,
                    plan.inventory,
                    facts,
                    resources,
                    offsets,
                    self._resumed,
                    self._warm_start,
                    plan.automatic,
                )
                write_deployment(paths.root, self._deployment(ready_hosts))
            except OSError as error:
                raise PreflightError(
                    f"the run cannot be written: {error}", where=str(paths.root)
                ) from error
            if (point := self.resume_point or self._weights) is not None:
                place_copy(point, paths)
                ship_copies(point, plan, ready_hosts)

    def _claim_on(self, ready_host: ReadyHost) -> None:
        if ready_host.node.is_remote:
            claim_directory(ready_host.node, ready_host.part)
            self._claimed.add(ready_host.part.host.name)
            make_run_directories(ready_host.node, ready_host.part)

    def _deployment(self, ready_hosts: Mapping[str, ReadyHost]) -> Deployment:
        parts = tuple(ready_host.part for ready_host in ready_hosts.values())
        return Deployment(run_id=self.run_id, parts=parts)

    def _with_writers(self, ready_hosts: Mapping[str, ReadyHost]) -> dict[str, ReadyHost]:
        """The same, with the learners and buffers of each host, whose checkpoints and replay
        stores are accepted from it."""
        found: dict[str, dict[str, list[int]]] = {host: {} for host in ready_hosts}
        for placement in self.plan.placements:
            for role in placement.roles:
                found[placement.host].setdefault(role_of(role), []).append(index_of(role))
        return {
            host: replace(
                ready_host,
                part=msgspec.structs.replace(
                    ready_host.part,
                    learners=tuple(found[host].get("learner", ())),
                    buffers=tuple(found[host].get("buffer", ())),
                ),
            )
            for host, ready_host in ready_hosts.items()
        }

    @property
    def _resumed(self) -> Resumed | None:
        return self.resume_point.resumed if self.resume_point else None

    @property
    def _warm_start(self) -> WarmStart | None:
        return self._weights.warm_start if self._weights else None

    def _watch(
        self,
        controller: Controller,
        ready_hosts: Mapping[str, ReadyHost],
        ready: Mapping[str, HostReady],
        offsets: Mapping[str, ClockOffset],
        resources: Mapping[str, ProcessResources],
        listener: RunListener,
        interrupts: Interrupts,
    ) -> RunOutcome:
        setups = {
            host: HostSetup(
                endpoints=item.endpoints,
                run_dir=ready_hosts[host].part.run_dir,
                address=ready_hosts[host].part.host.address,
                public_keys=item.public_keys,
                clock_offset_ns=offsets[host].offset_ns,
            )
            for host, item in ready.items()
        }
        launches = with_resources(
            wire(self.plan, setups, self.run_id, self._resumed, self._warm_start), resources
        )
        self._shares = shares_of([ready_host.part for ready_host in ready_hosts.values()])
        parts = [
            (ready_host.node, self._shares[host], ready_host.part.run_dir)
            for host, ready_host in ready_hosts.items()
            if ready_host.node.is_remote
        ]
        mirror = Mirror(parts, self.paths.root)
        joining = Joining(self.plan.placements)
        for host in ready_hosts:
            names = (p.process for p in self.plan.placements if p.host == host)
            listener.phase(host, "join", ", ".join(names))

        def show(progress: Progress) -> None:
            for host in joining.take(progress):
                listener.phase(host, "joined", "")
            listener.show(progress)
            for notice in self.notices():
                controller.tell_coordinator(notice)

        try:
            return controller.run(launches, show, listener.note, detaches=self.detaches)
        finally:
            self._missing = mirror.finish(interrupts.is_urgent)

    def _end(
        self,
        controller: Controller,
        ready_hosts: Mapping[str, ReadyHost],
        outcome: RunOutcome,
        has_started: bool,
        interrupts: Interrupts,
        listener: RunListener,
    ) -> None:
        """Cleans up all hosts; names those that cannot be reached."""
        lost = {*controller.close(outcome.silent), *outcome.lost}
        ends = {
            host: partial(self._end_part, ready_host, host in lost)
            for host, ready_host in ready_hosts.items()
        }
        for host, error in in_parallel(ends, CLEAN_S, interrupts.is_urgent).items():
            cause = self._missing.get(host, error)
            self.unclean.append(f"{host}: {cause.what}")
        if has_started and not self.unclean:
            self._note(ready_hosts, listener, "nothing is left on any host", is_collected=True)

    def _note(
        self, ready_hosts: Mapping[str, ReadyHost], listener: RunListener, words: str, **facts: bool
    ) -> None:
        """Records facts for later commands, which otherwise ask the hosts again."""
        try:
            write_deployment(
                self.paths.root, msgspec.structs.replace(self._deployment(ready_hosts), **facts)
            )
        except OSError as error:
            reason = f"{error.strerror or error} ({self.paths.root})"
            listener.note(f"{words}, but this cannot be recorded here: {reason}")

    def _end_part(self, ready_host: ReadyHost, is_lost: bool) -> None:
        """Cleans up one host, over a new connection if the first one is possibly broken.

        Args:
            ready_host: The host.
            is_lost: Its supervisor sent no final report, so the host must be checked.

        Raises:
            TianJiError: It failed, or processes are left.
        """
        node, is_missing = ready_host.node, ready_host.part.host.name in self._missing
        try:
            if is_lost or is_missing:
                node.close()
                node = self.reach(ready_host.part.host, threading.Event())
            if is_lost:
                findings = end_part(node, ready_host.part, self.run_id, within_s=1.0)
                if findings.marked:
                    raise CleanupError(f"processes {findings.marked} are left")
            if is_missing:
                share = self._shares[ready_host.part.host.name]
                fetch(node, share, ready_host.part.run_dir, self.paths.root, everything=True)
            if node.is_remote and ready_host.part.host.name in self._claimed:
                remove_part(node, ready_host.part, self.run_id)
        finally:
            node.close()

    def _release(self, controller: Controller, ready_hosts: Mapping[str, ReadyHost]) -> None:
        late = controller.close()
        _close_all(ready_hosts)
        if late:
            raise CleanupError("the supervisor does not exit", where=", ".join(late))


def _taken(ready: Mapping[str, HostReady]) -> TakenWeights | None:
    """The weights that fit, as the hosts say, which all make the same network."""
    return next((item.taken for item in ready.values() if item.taken is not None), None)


def _close_all(ready_hosts: Mapping[str, ReadyHost]) -> None:
    in_parallel({host: ready_host.node.close for host, ready_host in ready_hosts.items()}, CLEAN_S)


def port_of(endpoint: str) -> int:
    """
    >>> port_of("tcp://[::1]:29500")
    29500
    """
    return int(endpoint.rpartition(":")[2])


def error_of(unclean: list[str], paths: RunPaths) -> CleanupError:
    """The error for leftovers; a run that has not started has no directory here."""
    return CleanupError(
        "parts of the run may be left" + "".join(f"\n    {text}" for text in unclean),
        where=paths.run_id,
        fix=f"once the host is back, run: {command_for('down', paths.root)}"
        if paths.manifest.is_file()
        else "once the host is back, remove it there",
    )
