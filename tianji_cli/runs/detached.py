"""Detached runs: inspect them, end them, copy their files here.

Everything starts from `results/<run-id>/deployment.json`, written when the run started. Hosts are
asked in parallel; one that does not answer does not block the others.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from engine.errors import CleanupError, TianJiError
from engine.supervision.host_state import MAX_STATE_BYTES, STATE_NAME, HostState, state_of_bytes
from engine.supervision.run_inspector import Findings
from tianji_cli.connectors.base import Node
from tianji_cli.provisioning.reaching import Connect, connect
from tianji_cli.runs.host_control import end_part, look_at_part, remove_part
from tianji_cli.runs.mirror import fetch
from tianji_cli.storage.consent import NOBODY, Consent
from tianji_cli.storage.deployment import (
    Deployment,
    HostPart,
    note_ended,
    read_deployment,
    shares_of,
    write_deployment,
)
from tianji_cli.storage.run_dir import RunPaths, command_for

STOP_S = 25.0
"""Shutdown: `down` waits this long for a graceful exit, then kills.

A learner can be in an update that takes longer, and its run would wait for that. But nothing of a
run may be left 30 s after `down`, and only training after the newest checkpoint is lost.
"""

BRING_S = 0.5
"""How often a followed log is read on its host."""
RECONNECT_S = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class HostAnswer:
    """The answer of a host about its part.

    Attributes:
        part: The host's part.
        findings: Its state; None if it does not answer.
        error: Why it does not answer, or what failed with its files.
    """

    part: HostPart
    findings: Findings | None
    error: TianJiError | None = None

    @property
    def is_running(self) -> bool:
        return self.findings is not None and bool(
            self.findings.is_supervised or self.findings.marked
        )

    @property
    def problem(self) -> str:
        """The problem, to be printed after the host's name; empty if there is none."""
        if self.error is None:
            return ""
        verb = "answers, but " if self.findings else "does not answer: "
        return verb + self.error.what


class DetachedRun:
    """A run, from its directory here.

    Args:
        paths: `results/<run-id>`.
        reach: Makes connections.
        consent: Asked before using hosts of a run that was not started here.

    Raises:
        ConfigError: The run had no separate processes, or the user does not agree.
    """

    def __init__(
        self, paths: RunPaths, reach: Connect = connect, consent: Consent = NOBODY
    ) -> None:
        self.paths = paths
        self.deployment: Deployment = read_deployment(paths.root, consent)
        self._reach = reach

    def look(self, *, collects: bool = True) -> list[HostAnswer]:
        """The state of the run on each host; also copies new lines of traces and logs."""

        def ask(node: Node, part: HostPart) -> HostAnswer:
            findings = look_at_part(node, part, self.deployment.run_id)
            error = self._bring(node, part, everything=False) if collects else None
            return HostAnswer(part, findings, error)

        return self._ask_all(ask)

    def bring_along(
        self, stop: threading.Event, tell: Callable[[HostState], None] | None = None
    ) -> None:
        """Copies new data from every remote host, until `stop` is set.

        Each host has its own thread and connection, which is reopened when it breaks. `look`
        reports hosts that do not answer.

        Args:
            stop: Ends the threads.
            tell: Called, from those threads, with each new state of a host; of this machine too.
        """
        for part in self.deployment.parts:
            if part.host.connection != "local" or tell is not None:
                threading.Thread(
                    target=self._bring_part, args=(part, stop, tell), name="bring", daemon=True
                ).start()

    def _bring_part(
        self, part: HostPart, stop: threading.Event, tell: Callable[[HostState], None] | None
    ) -> None:
        told: HostState | None = None
        is_first = True
        while not stop.wait(0.0 if is_first else RECONNECT_S):
            is_first = False
            with contextlib.suppress(TianJiError, OSError):
                node = self._reach(part.host, stop)
                try:
                    while not stop.wait(BRING_S):
                        if tell is not None and (state := _state_of(node, part)) != told:
                            told = state
                            if state is not None:
                                tell(state)
                        if self._bring(node, part, everything=False) is not None:
                            break
                finally:
                    node.close()

    def fetch(self) -> list[HostAnswer]:
        """Copies the files from each host and ends nothing: all files of a part that has ended; for
        a running part only files that are appended to, and checkpoints."""

        def ask(node: Node, part: HostPart) -> HostAnswer:
            findings = look_at_part(node, part, self.deployment.run_id)
            has_ended = not (findings.is_supervised or findings.marked)
            return HostAnswer(part, findings, self._bring(node, part, everything=has_ended))

        return self._ask_all(ask)

    def note_ended(self) -> None:
        """Records that the run has ended, for commands that ask no host; skipped on a full disk."""
        if not self.deployment.has_ended:
            with contextlib.suppress(OSError):
                note_ended(self.paths.root, self.deployment)

    def end(self) -> list[HostAnswer]:
        """Ends the run on all hosts, copies all files here, and removes them there.

        All supervisors are asked at the same time: the one beside the coordinator stops the run
        gracefully, which also ends the others' roles. If nothing is left: `note_collected`.
        """

        def stop(node: Node, part: HostPart) -> HostAnswer:
            findings = end_part(node, part, self.deployment.run_id, STOP_S)
            error = self._bring(node, part, everything=True, removes=not findings.marked)
            return HostAnswer(part, findings, error)

        return self._ask_all(stop)

    def _bring(
        self, node: Node, part: HostPart, *, everything: bool, removes: bool = False
    ) -> TianJiError | None:
        """Copies a host's files here, then removes them there.

        Returns:
            The error, if any; it does not affect the host's answer.
        """
        if not node.is_remote:
            return None
        try:
            share = shares_of(self.deployment.parts)[part.host.name]
            fetch(node, share, part.run_dir, self.paths.root, everything=everything)
            if removes:
                remove_part(node, part, self.deployment.run_id)
        except CleanupError as error:
            return error
        except TianJiError as error:
            return TianJiError(f"its files did not come: {error.what}", where=node.name)
        except OSError as error:
            return TianJiError(f"its files cannot be kept here: {error}", where=node.name)
        return None

    def note_collected(self) -> None:
        """Records that all files are here and nothing is on any host.

        Raises:
            CleanupError: This cannot be written.
        """
        done = msgspec.structs.replace(self.deployment, is_collected=True)
        try:
            write_deployment(self.paths.root, done)
        except OSError as error:
            root = self.paths.root
            raise CleanupError(
                f"nothing is left on any host, but this cannot be recorded here: {error}",
                where=str(root),
                fix=f"free space or permissions there, then: {command_for('down', root)}",
            ) from error

    def _ask_all(self, ask: Callable[[Node, HostPart], HostAnswer]) -> list[HostAnswer]:
        def one(part: HostPart) -> HostAnswer:
            try:
                node = self._reach(part.host, threading.Event())
                try:
                    return ask(node, part)
                finally:
                    node.close()
            except TianJiError as error:
                return HostAnswer(part, None, error)
            except (
                OSError
            ) as error:  # an error of this machine: no descriptor, no memory for a process
                failed = TianJiError(f"it cannot be asked: {error}", where=part.host.name)
                return HostAnswer(part, None, failed)

        with ThreadPoolExecutor(max_workers=len(self.deployment.parts)) as pool:
            return list(pool.map(one, self.deployment.parts))


def _state_of(node: Node, part: HostPart) -> HostState | None:
    """What the supervisor there has last written down; None if it is not of this run's attempt."""
    name = f"{part.run_dir}/{STATE_NAME}/{part.host.name}.json"
    state = state_of_bytes(node.read(name, 0, MAX_STATE_BYTES))
    return state if state is not None and state.attempt == part.attempt else None
