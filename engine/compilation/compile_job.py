"""Compilation during training: starts the compiler, checks whether it is done, ends it.

Training never waits: a learner asks between two updates, an actor between two rollouts. Only where
the lag is fixed it does, since the moment of the switch would change results. The outcome is
reported once; if anything fails, training continues in eager mode.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from engine.blueprint import Blueprint
from engine.compilation.compiler_process import LOG, start_compiler
from engine.compilation.library import DamagedError, Kind, Library, discard_library, library_path
from engine.host.cpp_compiler import compiler_names, cpp_compiler
from engine.host.descriptors import spare
from engine.host.fork import Child, end

LIMIT_S = 900.0
"""A compiler that takes longer is ended."""
NAMES: dict[Kind, str] = {
    "steps": "optimiser steps",
    "act": "acting",
    "collect": "acting and environments",
    "prepare": "values before the steps",
}


class CompileJob:
    """Provides a compiled function: from the cache, or by a separate process.

    Of all processes on a host that need the same function, one compiles it and the others wait.

    Args:
        blueprint: The experiment.
        kind: Which function of it.

    Attributes:
        kind: The same.
        library: The compiled function, once there is one.
        outcome: One line, once it is known: where the function comes from, or why there is none.
        failure: Why there is none although this host has a C++ compiler; empty if that is not so.
    """

    @spare()
    def __init__(self, blueprint: Blueprint, kind: Kind) -> None:
        self.library: Library | None = None
        self.outcome = ""
        self.failure = ""
        self._blueprint = blueprint
        self._path = library_path(blueprint, kind)
        self.kind: Kind = kind
        self._started_at_s = time.monotonic()
        self._process: Child | None = None
        self._workspace: Workspace | None = None
        self._is_waiting = False
        self._start("taken from the cache")

    def poll(self) -> bool:
        """Whether the outcome became known in this call."""
        if self._is_waiting:
            return self._look_out()
        process = self._process
        if process is None:
            return False
        elapsed_s = time.monotonic() - self._started_at_s
        if process.poll() is None and elapsed_s < LIMIT_S:
            return False
        self._conclude(process, elapsed_s)
        return True

    @spare()
    def _conclude(self, process: Child, elapsed_s: float) -> None:
        """Sets the outcome once the compiler is done or timed out."""
        if process.returncode == 0:
            if not self._take(f"compiled in {elapsed_s:.1f} s"):
                self._fail("the compiled library is damaged")
        elif process.returncode is None:
            self._fail(f"not finished after {LIMIT_S:.0f} s")
        else:
            self._fail(self._last_line())
        self.close()

    def _fail(self, reason: str) -> None:
        self.outcome, self.failure = f"not compiled: {reason}", reason

    def wait_within(self, limit_s: float) -> None:
        """Waits for the compiler for at most this long; `poll` says whether it is done."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(limit_s)
        elif not self.outcome:  # no event says that another process has released its lock
            time.sleep(limit_s)

    def wait(self) -> None:
        """Blocks until the outcome is known."""
        while not self.outcome:
            if self._process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(LIMIT_S)
            else:
                Workspace.await_release(self._path)
            self.poll()

    def tell(self, use: Callable[[Library], None]) -> str:
        """Uses the compiled function, and logs the outcome.

        Returns:
            That line.
        """
        if self.library is not None:
            use(self.library)
        products = self.library.products if self.library is not None else ""
        line = f"{NAMES[self.kind]}: {'; '.join(filter(None, (self.outcome, products)))}"
        print(line, flush=True)
        return line

    @property
    def irreproducible(self) -> str:
        """The detail of the event that a fixed lag does not give here what it gives elsewhere;
        empty if this job is no reason."""
        return self.failure and f"since there is no library for {NAMES[self.kind]}: {self.failure}"

    @spare()
    def close(self) -> None:
        """Ends the compiler if it runs, and removes its files."""
        process, self._process = self._process, None
        if process is not None:
            end(process)
        if self._workspace is not None:
            self._workspace.remove()
            self._workspace = None

    def _look_out(self) -> bool:
        """Whether the other process that compiles this is done; if it gave up, takes over."""
        if time.monotonic() - self._started_at_s > LIMIT_S:
            self._fail(f"not finished after {LIMIT_S:.0f} s")
            self._is_waiting = False
        else:
            self._start("compiled by another process")
        return bool(self.outcome)

    @spare()
    def _start(self, how_found: str) -> None:
        """Uses the library if it exists, or compiles it, or waits for the process that does."""
        try:
            if not self._take(how_found):
                self._claim(how_found)
        except OSError as error:
            self.close()
            self._fail(str(error))
        self._is_waiting = self._process is None and not self.outcome

    def _claim(self, how_found: str) -> None:
        """Compiles it, unless it exists by now or another process does so."""
        self._workspace = Workspace.claim(self._path)
        if self._take(how_found):  # its owner finished just before the claim
            self.close()
        elif self._workspace is not None and (missing := _missing_compiler()) is not None:
            self.close()
            self.outcome = f"not compiled: {missing}"
        elif self._workspace is not None:
            discard_library(self._path)
            self._process = start_compiler(
                self._blueprint, self.kind, self._path, self._workspace.path, self._workspace.lock
            )

    def _last_line(self) -> str:
        assert self._process is not None
        assert self._workspace is not None
        lines = (self._workspace.path / LOG).read_text(errors="replace").splitlines()
        return lines[-1] if lines else f"the compiler ended with {self._process.returncode}"

    def _take(self, how: str) -> bool:
        """Loads the library if it is there and complete; else returns False."""
        try:
            self.library = Library(self._path)
            self.outcome = how
        except DamagedError:
            return False
        except (OSError, RuntimeError, AttributeError) as error:
            self._fail(str(error))
        return True


class Workspace:
    """A directory beside a future library, and the lock for compiling it.

    The lock is released when the last process that has it open ends, however it ends; the next
    owner removes the contents of the directory.

    Args:
        path: It exists.
        lock: Descriptor of the directory, locked; the compiler inherits it, and clears the
            directory if it outlives its parent.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.lock = lock

    @classmethod
    def claim(cls, library: Path) -> Workspace | None:
        """None if another process has the lock.

        Raises:
            OSError: The directory cannot be made.
        """
        path = library.with_suffix(".compiling")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_there = os.path.samestat(
                os.fstat(lock), path.stat()
            )  # its owner has possibly ended now
        except OSError:
            is_there = False
        if not is_there:
            os.close(lock)
            return None
        for leftover in path.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        return cls(path, lock)

    @staticmethod
    def await_release(library: Path) -> None:
        """Returns when no other process holds the lock for compiling this library."""
        try:
            lock = os.open(library.with_suffix(".compiling"), os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
        finally:
            os.close(lock)

    def remove(self) -> None:
        """Removes the directory with its contents, and releases the lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def _missing_compiler() -> str | None:
    """Why nothing can be compiled here; None if it can."""
    if cpp_compiler() is not None:
        return None
    return f"no C++ compiler here ({', '.join(compiler_names())})"
