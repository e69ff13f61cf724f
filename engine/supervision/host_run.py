"""One host's part of a run, from preparation to its end: forkserver, endpoints, marks."""

from __future__ import annotations

import os

import msgspec

from engine.clock import TimerQueue
from engine.control_protocol import Prepare, Prepared, Refused
from engine.devices.visible import selected_gpus
from engine.errors import TianJiError
from engine.host.cores import allowed_cores
from engine.host.endpoints import Endpoints
from engine.host.host_code import ProductInAdvance
from engine.host.process_identity import RUN_VARIABLE, kill_marked, mark
from engine.supervision.worker_processes import WorkerProcesses
from engine.wire.keys import make_pair

TERMINATE_S = 3.0
"""Between asking roles to end and SIGKILL."""
GONE_S = 3.0
"""After SIGKILL. A forkserver that has reported no exit by then is broken itself."""


def compiles_in_advance(prepare: Prepare) -> bool:
    """Whether what compiled functions need is compiled before there are roles: not where it is
    going to be measured which cores are idle."""
    is_measured = prepare.cores_needed is not None and len(allowed_cores()) >= prepare.cores_needed
    return prepare.experiment.learner.compile != "off" and not is_measured


class HostRun:
    """Owns what a run needs on this host besides its roles, and cleans it up.

    Args:
        prepare: The run.
        timers: For the steps of the shutdown.

    Attributes:
        children: The forkserver and the roles.
        keys: Of the supervisor, if there is TCP.
        is_ending: Whether the shutdown has started; from then on exits are expected.
        is_overdue: Whether all roles should be gone by now; `close` ends the rest.
    """

    def __init__(self, prepare: Prepare, timers: TimerQueue) -> None:
        self.prepare = prepare
        self._timers = timers
        self._endpoints = Endpoints()
        self._reserved = self._reserve()
        self.keys = make_pair() if prepare.listen is not None else None
        self._mark = mark(prepare.run_id, prepare.host, prepare.run_dir, prepare.attempt)
        listeners = dict(self._endpoints.listeners)
        environment = {**prepare.env, **self._choose_gpus(), RUN_VARIABLE: self._mark}
        self._product: ProductInAdvance | None = None
        if compiles_in_advance(prepare):
            self._product = ProductInAdvance({**os.environ, **environment})
        self.children = WorkerProcesses(environment, tuple(listeners.values()))
        self.children.prepare(msgspec.structs.replace(prepare, listeners=listeners))
        self._endpoints.let_go()
        self.is_ending = self.is_overdue = False

    @property
    def socket_dir(self) -> str:
        """Directory of the Unix sockets; empty if there are none."""
        return str(self._endpoints.directory or "")

    def reserve(self, report: Prepared) -> Prepared | Refused:
        """Adds endpoints and the supervisor's own key to the answer of the forkserver."""
        if isinstance(self._reserved, Refused):
            return self._reserved
        own = {self.prepare.address: self.keys.public} if self.keys else {}
        return msgspec.structs.replace(
            report, endpoints=self._reserved, public_keys=report.public_keys | own
        )

    def _reserve(self) -> list[str] | Refused:
        wanted = self.prepare
        try:
            return self._endpoints.reserve(wanted.num_endpoints, wanted.listen)
        except TianJiError as error:
            return self._refused(error)

    def _choose_gpus(self) -> dict[str, str]:
        """What makes the GPUs of the inventory visible to roles, among those that are visible here:
        a resource manager can have chosen before."""
        try:
            return selected_gpus(self.prepare.gpus, {**os.environ, **self.prepare.env})
        except TianJiError as error:
            self._reserved = self._refused(error)
            return {}

    def _refused(self, error: TianJiError) -> Refused:
        return Refused(
            exit_code=error.exit_code,
            what=error.what,
            where=f"{self.prepare.host}: {error.where}",
            fix=error.fix,
        )

    def end_within(self, seconds: float) -> None:
        """Asks the roles to end after some time, then kills them; an earlier schedule is kept."""
        if self.is_ending:
            return
        self.is_ending = True
        self._timers.add(seconds, self.children.end_all)
        self._timers.add(seconds + TERMINATE_S, self.end_now)

    def end_now(self) -> None:
        """SIGKILL to all roles."""
        self.is_ending = True
        self.children.kill_all()
        self._timers.add(GONE_S, self._note_overdue)

    def _note_overdue(self) -> None:
        self.is_overdue = True

    def close(self) -> None:
        """Ends the rest: kills all processes with the run's mark except this one."""
        if self._product is not None:
            self._product.close()
        self.children.close()
        kill_marked(self._mark, spare={os.getpid()})
        self._endpoints.release()
