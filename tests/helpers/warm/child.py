"""In a fork: leaves nothing of the process that it comes from but libraries, and runs a module.

What a new interpreter would set anew is set here: signals, descriptors, variables, streams, search
path, handlers of the end.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import importlib.util
import io
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from tests.helpers.warm.libraries import become_kind_of
from tests.helpers.warm.start import Start

_PR_SET_NAME = 15
_ARGUMENTS, _VARIABLES = (45, 46), (47, 48)
"""Where they begin and end in memory: indices among the fields after the command's name in
`/proc/<pid>/stat`."""
_SEARCH_PATH = sys.path[1:]
"""Without the working directory, which comes first."""


def become(start: Start, descriptors: list[int]) -> NoReturn:
    """Runs what is asked for, in this process, which has just been forked.

    Args:
        start: What is asked for.
        descriptors: Those for `start.targets`; all others are closed.
    """
    code = 70
    try:
        gc.freeze()  # what the other process has left is not ours to close
        _forget_end()
        _take_signals(start)
        _take_descriptors(start.targets, descriptors)
        _take_place(start)
        code = _run(start)
    finally:
        os._exit(code)


def _forget_end() -> None:
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]


def _take_signals(start: Start) -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number in start.ignored:
            signal.signal(number, signal.SIG_IGN)
        elif callable(signal.getsignal(number)) or signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    if signal.SIGINT not in start.ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _take_descriptors(targets: list[int], sources: list[int]) -> None:
    free = max([*targets, *sources]) + 1
    moved = [fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, free) for source in sources]
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in moved:
            _close(int(name))
    for source, target in zip(moved, targets, strict=True):
        os.dup2(source, target)
        os.close(source)
    sys.stdin = sys.__stdin__ = _text_stream(0, "r")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _text_stream(1, "w")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _text_stream(2, "w")  # type: ignore[misc]


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:  # the one that listed them
        return


def _text_stream(descriptor: int, mode: str) -> io.TextIOWrapper:
    is_unbuffered = mode == "w" and bool(os.environ.get("PYTHONUNBUFFERED"))
    stream = open(  # noqa: SIM115 - as long as the process
        descriptor, f"{mode}b", 0 if is_unbuffered else -1, closefd=False
    )
    return io.TextIOWrapper(
        stream,  # type: ignore[arg-type]
        encoding="utf-8",
        errors="backslashreplace" if descriptor == 2 else "strict",
        line_buffering=descriptor == 2 or os.isatty(descriptor),
        write_through=is_unbuffered,
    )


def _take_place(start: Start) -> None:
    """Directory, variables, session, limits, search path, and what others see of a process."""
    if start.has_own_session:
        os.setsid()
    os.chdir(start.cwd)
    os.umask(start.umask)
    resource.setrlimit(resource.RLIMIT_NOFILE, start.descriptors)
    os.sched_setaffinity(0, start.cores)
    os.environ.clear()
    os.environ.update(start.env)
    tempfile.tempdir = None  # found by a variable that is another now
    _write_over(_VARIABLES, [f"{name}={value}" for name, value in start.env.items()])
    _write_over(_ARGUMENTS, start.words)
    name = Path(sys.executable).name.encode()[:15]
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name, 0, 0, 0)
    named = filter(None, start.env.get("PYTHONPATH", "").split(os.pathsep))
    first = [os.getcwd()] if start.searches_directory else []
    sys.path[:] = [*dict.fromkeys([*first, *named, *_SEARCH_PATH])]
    gc.enable()


def _write_over(bounds: tuple[int, int], words: list[str]) -> None:
    """Where the kernel looks for them; nothing else reads them there any more."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = (int(fields[bound]) for bound in bounds)
    data = b"".join(os.fsencode(word) + b"\0" for word in words)
    ctypes.memmove(begin, data.ljust(end - begin, b"\0"), end - begin)


def _run(start: Start) -> int:
    """What `python -m` does. Returns the exit code."""
    become_kind_of(start)
    importlib.invalidate_caches()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
    spec = importlib.util.find_spec(start.module)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{start.module}.__main__")
    assert spec is not None
    assert spec.origin is not None
    main = ModuleType("__main__")
    main.__file__, main.__spec__, main.__package__ = spec.origin, spec, spec.parent
    sys.modules["__main__"] = main
    sys.argv = [spec.origin, *start.arguments]
    sys.orig_argv[:] = start.words
    try:
        exec(spec.loader.get_code(spec.name), main.__dict__)  # type: ignore[union-attr]
        code: object = 0
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - as an interpreter does
        sys.excepthook(*sys.exc_info())
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code if isinstance(code, int) else int(code is not None)


def await_parent(parent: int) -> None:
    """Until this orphan has been given to its parent."""
    deadline_s = time.monotonic() + 10
    while os.getppid() != parent:
        if time.monotonic() > deadline_s:
            os._exit(70)
        time.sleep(0.0005)
