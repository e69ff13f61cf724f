"""`subprocess` of a process, led so that TianJi's own programs are forks with read libraries."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.helpers.warm.child import become
from tests.helpers.warm.start import Start, can_be_fork, module_of

_new_interpreter: Callable[..., int] = subprocess._fork_exec  # type: ignore[attr-defined]


def lead(fork: Callable[[Start, list[int]], int | None], env: Mapping[str, str]) -> None:
    """From now on `subprocess` asks `fork` for such programs.

    Args:
        fork: Gets what is asked for and descriptors for it; returns the child, or None if it needs
            a new interpreter.
        env: The variables with which libraries were read.
    """

    def start_program(
        words: Sequence[str | bytes],
        executables: Sequence[bytes],
        close_fds: bool,
        kept: Sequence[int],
        cwd: str | None,
        variables: list[bytes] | None,
        *rest: object,
    ) -> int:
        asked = _asked(words, close_fds, kept, cwd, variables, *rest)
        if asked is not None and can_be_fork(asked[0], env):
            child = fork(*asked)
            if child is not None:
                return child
        return _new_interpreter(words, executables, close_fds, kept, cwd, variables, *rest)

    subprocess._fork_exec = start_program  # type: ignore[attr-defined]


def stop_leading() -> None:
    subprocess._fork_exec = _new_interpreter  # type: ignore[attr-defined]


def _asked(
    words: Sequence[str | bytes],
    close_fds: bool,
    kept: Sequence[int],
    cwd: str | None,
    variables: list[bytes] | None,
    *rest: object,
) -> tuple[Start, list[int]] | None:
    """What is asked for, and its descriptors; None if only a new interpreter will do."""
    (p2cread, _, _, c2pwrite, _, errwrite, _, error_pipe, _, has_own_session), others = (
        rest[:10],
        rest[10:16],
    )
    if not close_fds or tuple(others) != (-1, None, None, None, -1, None):
        return None  # a process group, another user, another umask, a function before it starts
    found = module_of([os.fsdecode(word) for word in words])
    if found is None:
        return None
    module, arguments, searches_directory = found
    named = os.environb.items() if variables is None else (v.split(b"=", 1) for v in variables)
    try:
        directory = os.path.abspath(cwd or os.getcwd())
        if not os.access(directory, os.X_OK):
            return None
    except OSError:
        return None
    targets = {0: p2cread, 1: c2pwrite, 2: errwrite}
    targets = {number: number if given == -1 else given for number, given in targets.items()}
    targets |= {number: number for number in kept if number != error_pipe}
    if not all(os.path.exists(f"/proc/self/fd/{number}") for number in targets.values()):
        return None  # a closed stream
    start = Start(
        words=[os.fsdecode(word) for word in words],
        module=module,
        arguments=arguments,
        searches_directory=searches_directory,
        cwd=directory,
        env={os.fsdecode(name): os.fsdecode(value) for name, value in named},
        targets=list(targets),
        has_own_session=bool(has_own_session),
        ignored=[n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN],
        parent=os.getpid(),
        umask=int(re.findall(r"Umask:\s*(\d+)", Path("/proc/self/status").read_text())[0], 8),
        descriptors=resource.getrlimit(resource.RLIMIT_NOFILE),
        cores=list(os.sched_getaffinity(0)),
    )
    return start, list(targets.values())  # type: ignore[arg-type]


def fork_here(start: Start, descriptors: list[int]) -> int:
    """Forks this process, which is a fork with read libraries itself."""
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    child = os.fork()
    if child == 0:
        run(start, descriptors)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return child


def run(start: Start, descriptors: list[int]) -> None:
    """In a fork: becomes what is asked for; a forkserver starts nothing in this way."""
    if start.is_forkserver:
        stop_leading()
    else:
        lead(fork_here, start.env)
    become(start, descriptors)
