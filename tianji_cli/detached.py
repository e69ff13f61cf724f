"""Runs that were left alone: look at them, end them, bring their files here.

Everything starts from `results/<run-id>/deployment.json`, written when the run began. Hosts are
asked in parallel; one that does not answer does not keep the others from answering.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from engine.errors import TianJiError
from engine.runtime.inspect import Findings
from tianji_cli.connectors.base import Node
from tianji_cli.deployment import Deployment, HostPart, read_deployment, write_deployment
from tianji_cli.host_control import end_part, look_at_part, remove_part
from tianji_cli.mirror import fetch
from tianji_cli.provision import Connect, connect
from tianji_cli.run_dir import RunPaths

STOP_S = 25.0
"""How long a run may take to end in good order before it is ended by force."""

T = TypeVar("T")


@dataclass(frozen=True)
class HostAnswer:
    """What a host says of its part; `error` if it does not answer."""

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
        """The error as what the host does; empty if there is none."""
        return f"does not answer: {self.error.what}" if self.error is not None else ""


class DetachedRun:
    """A run by its directory here.

    Args:
        paths: `results/<run-id>`.
        reach: Makes connections.

    Raises:
        ConfigError: The run had no processes of its own.
    """

    def __init__(self, paths: RunPaths, reach: Connect = connect) -> None:
        self.paths = paths
        self.deployment: Deployment = read_deployment(paths.root)
        self._reach = reach

    def look(self, *, collects: bool = True) -> list[HostAnswer]:
        """What is there now, on each host; brings new lines of traces and logs along."""

        def ask(node: Node, part: HostPart) -> HostAnswer:
            findings = look_at_part(node, part, self.deployment.run_id)
            if collects and node.is_remote:
                fetch(node, part.run_dir, self.paths.root, everything=False)
            return HostAnswer(part, findings)

        return self._ask_all(ask)

    def end(self) -> list[HostAnswer]:
        """Ends the run everywhere, brings all files here, and removes them there.

        Every supervisor is asked at the same time: the one beside the coordinator stops the run in
        good order, which ends the others' roles as well.
        """

        def stop(node: Node, part: HostPart) -> HostAnswer:
            findings = end_part(node, part, self.deployment.run_id, STOP_S)
            if node.is_remote:
                fetch(node, part.run_dir, self.paths.root, everything=True)
                if not findings.marked:
                    remove_part(node, part)
            return HostAnswer(part, findings)

        answers = self._ask_all(stop)
        if all(answer.error is None and not answer.is_running for answer in answers):
            done = msgspec.structs.replace(self.deployment, is_collected=True)
            write_deployment(self.paths.root, done)
        return answers

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

        with ThreadPoolExecutor(max_workers=len(self.deployment.parts)) as pool:
            return list(pool.map(one, self.deployment.parts))
