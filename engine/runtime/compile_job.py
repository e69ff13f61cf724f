"""Compiling beside training: starts the compiler, sees whether it is done, ends it.

Nothing here ever waits: the learner asks between two updates. The outcome is told once, as a note
for the trace; whatever goes wrong, training goes on eagerly.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from engine.runtime.blueprint import Blueprint
from engine.runtime.compiled import CompiledSteps, cache_directory, library_path, signature_path
from engine.runtime.cores import release

LIMIT_S = 900.0
"""A compiler that takes longer is ended."""
END_S = 2.0
_COMPILERS = ("g++", "clang++", "c++")


class CompileJob:
    """Brings compiled steps about, from the cache or by a process of their own.

    Args:
        blueprint: The experiment.

    Attributes:
        steps: The compiled steps, once there are any.
        outcome: In one line, once it is known: what there is, or why not.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self.steps: CompiledSteps | None = None
        self.outcome = ""
        self._library = library_path(blueprint)
        self._started_at_s = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._workspace: Path | None = None
        if signature_path(self._library).is_file():
            self._load("taken from the cache")
        elif (missing := _missing_compiler()) is not None:
            self.outcome = f"not compiled: {missing}"
        else:
            self._start(blueprint)

    def poll(self) -> bool:
        """Whether the outcome became known just now."""
        process = self._process
        if process is None:
            return False
        elapsed_s = time.monotonic() - self._started_at_s
        if process.poll() is None and elapsed_s < LIMIT_S:
            return False
        if process.returncode == 0:
            self._load(f"compiled in {elapsed_s:.1f} s")
        elif process.returncode is None:
            self.outcome = f"not compiled: not done after {LIMIT_S:.0f} s"
        else:
            self.outcome = f"not compiled: {self._last_line()}"
        self.close()
        return True

    def close(self) -> None:
        """Ends the compiler if it runs, and removes its files."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._workspace is not None:
            shutil.rmtree(self._workspace, ignore_errors=True)

    def _start(self, blueprint: Blueprint) -> None:
        cache = cache_directory()
        try:
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._workspace = Path(tempfile.mkdtemp(prefix="compiling-", dir=cache))
        except OSError as error:
            self.outcome = f"not compiled: {error}"
            return
        experiment = self._workspace / "experiment.json"
        experiment.write_bytes(msgspec.json.encode(blueprint.experiment))
        with experiment.open("rb") as given, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "engine.runtime.compiler"),
                    *(str(self._library), str(self._workspace), str(os.getpid())),
                ],
                stdin=given,
                stdout=log,
                stderr=log,
                env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(self._workspace)},
            )
        release(self._process.pid)  # not onto the core that the learner is pinned to

    @property
    def _log(self) -> Path:
        assert self._workspace is not None
        return self._workspace / "log"

    def _last_line(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        assert self._process is not None
        return lines[-1] if lines else f"the compiler ended with {self._process.returncode}"

    def _load(self, how: str) -> None:
        try:
            self.steps = CompiledSteps(self._library)
            self.outcome = how
        except (OSError, RuntimeError, AttributeError, msgspec.MsgspecError) as error:
            self.outcome = f"not compiled: {error}"


def _missing_compiler() -> str | None:
    """Why nothing can be compiled here, if so."""
    named = os.environ.get("CXX")
    if any(shutil.which(name) for name in ((named,) if named else _COMPILERS)):
        return None
    return f"no C++ compiler here ({named or ', '.join(_COMPILERS)})"
