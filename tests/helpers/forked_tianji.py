"""`tianji` in a process of its own that need not import TianJi again: a fork of one that has.

For the many commands that only refuse, plan or explain; an import costs more than all that they do.
Whatever is about starting (search paths, closed streams, what is imported when) starts a real one.
As a program: it reads requests, line by line, and answers each with an exit code.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60.0
PRELOADED = ("up", "plan", "benchmarks.bench", "runs", "report", "status")


def run_forked(
    cwd: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`tianji ARGUMENTS` without a terminal, as `subprocess.run` with captured text does.

    Args:
        cwd: Its working directory.
        arguments: The words after `tianji`.
        env: All of its variables; None means those of this process, without colours.

    Raises:
        subprocess.TimeoutExpired: It did not end.
    """
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory(prefix="tianji-said-") as said:
        request = {
            "arguments": arguments,
            "cwd": str(cwd),
            "env": dict(env if env is not None else {**os.environ, "NO_COLOR": "1"}),
            "said": said,
        }
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        if not select.select([server.stdout], [], [], TIMEOUT_S)[0]:
            server.kill()
            _server.cache_clear()
            raise subprocess.TimeoutExpired(["tianji", *arguments], TIMEOUT_S)
        code = int(server.stdout.readline())
        out, err = (Path(said, name).read_text() for name in ("out", "err"))
    return subprocess.CompletedProcess(["tianji", *arguments], code, out, err)


@functools.cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, __file__],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.kill)
    return server


def _requests() -> Iterator[dict[str, object]]:
    """Requests, each in a child of its own; the parent answers, and yields none."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            yield json.loads(line)
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(request: dict[str, object]) -> None:
    """Takes over directory, variables and streams."""
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(request["env"])  # type: ignore[call-overload]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    for number, name in ((1, "out"), (2, "err")):
        descriptor = os.open(os.path.join(str(request["said"]), name), flags, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = [str(ROOT / "tianji_cli/main.py"), *request["arguments"]]  # type: ignore[misc]


def serve() -> None:
    """Runs each request's command in a fork, which ends as the command does."""
    for name in ("numpy", *(f"tianji_cli.commands.{command}" for command in PRELOADED)):
        importlib.import_module(name)
    import typer

    from tianji_cli.main import app, main

    typer.main.get_command(app)  # imports what only the first command would need
    with contextlib.closing(_requests()) as requests:
        for request in requests:
            _become(request)
            main()
            sys.exit(0)


if __name__ == "__main__":
    serve()
