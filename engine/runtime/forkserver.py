"""The forkserver: the process that all roles of a host are forked from.

It imports the heavy libraries once, checks the experiment, and forks a role whenever the supervisor
asks for one. A fork shares that memory and takes milliseconds, while a new interpreter would use a
core for seconds for `import torch`. It never opens a socket and never starts a thread, so forking
is safe at any time; if it dies, the kernel kills its roles.
"""

from __future__ import annotations

import io
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from engine.blame import ERROR, told
from engine.blueprint import Blueprint, make_arena, make_blueprint, notes_on_queue
from engine.control_protocol import (
    CommonSpec,
    Exited,
    Introduce,
    Prepare,
    Prepared,
    Refused,
    Signal,
    Spawn,
    Spawned,
    ToForkserver,
    WorkerSpec,
)
from engine.devices.visible import find_devices
from engine.envs.pool.catalogue import notes_on_backend
from engine.errors import TianJiError, of_machine
from engine.executors.warm_start import wanted_tensors
from engine.host.arithmetic import make_reproducible
from engine.host.cores import allowed_cores, idle_cores
from engine.host.end_signals import (
    Terminated,
    deliver_sigterm,
    leave_sigterm_to_supervisor,
    sigterm_held_back,
)
from engine.host.limits import Needs, check_limits, limits_here
from engine.host.malloc import keep_freed_memory, keep_what_is_there
from engine.host.process import (
    describe_exit,
    die_with_parent,
    flush_output,
    name_process,
    take_stdout,
)
from engine.host.user_code import restored_process
from engine.runtime.worker import Inherited, run_worker
from engine.search_path import look_in
from engine.supervision.host_facts import host_facts
from engine.supervision.json_lines import LineReader, write_line
from engine.trace.warm_start import match
from engine.wire.arena import Arena
from engine.wire.keys import KeyPair, make_pair


class _ForkServer:
    def __init__(self) -> None:
        self._out = take_stdout()
        self._reader: LineReader[ToForkserver] = LineReader(0, ToForkserver)
        self._children: dict[int, str] = {}
        self._pids: dict[str, int] = {}
        self._common: CommonSpec | None = None
        self._listeners: dict[str, int] = {}
        self._keys: dict[str, KeyPair] = {}
        """By process, if there is TCP; an incarnation that is started later has the same pair."""
        self._blueprint: Blueprint | None = None
        self._arena: Arena | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader.fd, selectors.EVENT_READ)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write)
        self._selector.register(self._wake_read, selectors.EVENT_READ)

    def serve(self) -> tuple[WorkerSpec, CommonSpec, Blueprint, Arena, Inherited] | None:
        """Serves until the supervisor is gone.

        Returns:
            None in the forkserver itself; in a forked child, its role.
        """
        while not self._reader.at_end:
            self._selector.select()
            self._reap()
            for message in self._reader.read():
                match message:
                    case Prepare():
                        write_line(self._out, self._prepare(message))
                    case Introduce(common=common):
                        self._common = common
                    case Spawn(worker=worker):
                        assert self._common is not None
                        if self._fork(worker, self._common):
                            assert self._blueprint is not None
                            assert self._arena is not None
                            own = self._bequeath(worker)
                            return worker, self._common, self._blueprint, self._arena, own
                    case Signal():
                        self._signal(message)
        for pid in self._children:
            _kill_group(pid, signal.SIGKILL)
        return None

    def _prepare(self, wanted: Prepare) -> Prepared | Refused:
        self._listeners = wanted.listeners
        for listener in self._listeners.values():
            os.set_inheritable(
                listener, False
            )  # roles are forks; their children must not inherit it
        look_in(wanted.module_directories)
        if wanted.experiment.staleness.is_fixed:
            make_reproducible()
        try:
            with restored_process(keeps_directory=True):  # it imports the user's modules
                blueprint = make_blueprint(wanted.experiment, wanted.cut, rehearses=True)
            needs = Needs(len(wanted.processes), wanted.num_connections)
            check_limits(needs, limits_here())
            saved, taken = wanted.init_weights, None
            if saved is not None:
                taken = match(saved, wanted_tensors(blueprint.algorithm))
            self._arena = make_arena(blueprint)
            self._blueprint = blueprint
            if wanted.listen is not None:
                self._keys = {process: make_pair() for process in wanted.processes}
            keep_what_is_there()
        except TianJiError as error:
            return Refused(
                exit_code=error.exit_code, what=error.what, where=error.where, fix=error.fix
            )
        cores = allowed_cores(wanted.max_cores)
        is_enough = wanted.cores_needed is not None and len(cores) >= wanted.cores_needed
        return Prepared(
            facts=host_facts(),
            devices=find_devices(wanted.gpus),
            notes=(*notes_on_queue(blueprint), *notes_on_backend(blueprint.env)),
            cores=cores,
            idle_cores=idle_cores(cores) if is_enough else (),
            public_keys={process: pair.public for process, pair in self._keys.items()},
            taken=taken,
        )

    def _fork(self, worker: WorkerSpec, common: CommonSpec) -> bool:
        """Forks a role. True in the child."""
        flush_output()
        started_at_s = time.time()
        own = os.getpid()
        with sigterm_held_back():
            pid = os.fork()
            if pid == 0:
                self._become_role(worker.address, common.log_of(worker.address), own)
                return True
        self._children[pid] = worker.address
        self._pids[worker.address] = pid
        spawned = Spawned(address=worker.address, pid=pid, started_at_s=started_at_s)
        write_line(self._out, spawned)
        return False

    def _become_role(self, address: str, log_path: str, parent: int) -> None:
        """In the child: sets its own process group and log, and closes the forkserver's files."""
        os.setpgid(0, 0)
        die_with_parent(parent)
        leave_sigterm_to_supervisor()
        name_process(f"tj-{address}")
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._selector.close()
        for fd in (self._wake_read, self._wake_write, self._out):
            os.close(fd)
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.close(log)
        os.close(nothing)
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Output of an environment can be followed line by line, as on a terminal.
            sys.stdout.reconfigure(line_buffering=True)

    def _bequeath(self, worker: WorkerSpec) -> Inherited:
        """In the child: keeps the role's own keys and ports, and closes the ports of others.

        The forkserver keeps its copies, for a later incarnation of the role and to keep the ports
        reserved.
        """
        listeners, self._listeners = self._listeners, {}
        own = {name: fd for name, fd in listeners.items() if name in worker.endpoints}
        for endpoint in listeners.keys() - own.keys():
            os.close(listeners[endpoint])
        keys, self._keys = self._keys.get(worker.address), {}
        return Inherited(keys, own)

    def _signal(self, wanted: Signal) -> None:
        """Signals a child that was not reaped yet, so never another process."""
        pid = self._pids.get(wanted.address)
        if pid is None:
            return
        if wanted.is_alone:
            os.kill(pid, wanted.number)
        else:
            _kill_group(pid, wanted.number)

    def _reap(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            return
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            cause, is_clean = describe_exit(status)
            address = self._children.pop(pid)
            if self._pids.get(address) == pid:
                del self._pids[address]
            write_line(self._out, Exited(address=address, cause=cause, is_clean=is_clean))


def _kill_group(pid: int, number: int) -> None:
    """Signals a child and its own children; only the child if it has no group yet."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        os.kill(pid, number)


@contextmanager
def _no_silent_end() -> Iterator[None]:
    """Turns any exception in the block into a failed exit that the log explains.

    Otherwise `sys.exit()` in the code of an environment would look like a role that is done.
    """
    try:
        yield
    except TianJiError as error:  # it has what, where and why; a traceback would hide that
        print(f"{ERROR}{error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)
    except Terminated:
        raise
    except BaseException as error:  # noqa: BLE001 - user code may raise anything
        traceback.print_exc()
        known = of_machine(error)
        words = f"\n    {known.what} ({known.fix})" if known is not None else ""
        print(f"{ERROR}{told(error)}{words}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None


def main() -> None:
    """Serves as forkserver, or, in a forked child, runs a role. Start it with `tethered`."""
    name_process("tj-forkserver")
    leave_sigterm_to_supervisor()
    deliver_sigterm()
    keep_freed_memory()
    with _no_silent_end():
        child = _ForkServer().serve()
        if child is not None:
            run_worker(*child)
    # All is closed. Finalizing a forked interpreter would copy every page that it shares with its
    # siblings, which takes seconds; so a clean exit leaves that to the kernel.
    flush_output()
    os._exit(0)


if __name__ == "__main__":
    main()
