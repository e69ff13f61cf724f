"""What a host is, asked by any Python from 3.7 on: no package is needed, not even this one's.

It is sent as text (`python3 -c <this file> facts ...`) to hosts that have nothing of TianJi yet.

    facts DIR PACKAGE...          one JSON document about host, interpreter, packages and disk
    listen ADDRESS FIRST END      listens on a free port of the range until standard input ends
    reach ADDRESS:PORT...         one JSON document: which of them answer
    clock                         answers each line on standard input with both clocks
"""

from __future__ import annotations

import sys

if "" in sys.path:  # a `token.py` in the home directory is not what the imports below mean
    sys.path.remove("")

import json
import os
import platform
import shutil
import socket
import subprocess
import time

CONNECT_S = 3.0


def packages(names: list[str]) -> dict[str, str | None]:
    """Installed versions; null for what is missing."""
    try:
        from importlib import metadata
    except ImportError:
        return {name: None for name in names}
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def memory_bytes() -> tuple[int, int]:
    """(total, available); zeros where /proc does not say."""
    sizes = {"MemTotal": 0, "MemAvailable": 0}
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                name, _, rest = line.partition(":")
                if name in sizes:
                    sizes[name] = int(rest.split()[0]) * 1024
    except OSError:
        return 0, 0
    return sizes["MemTotal"], sizes["MemAvailable"]


def gpus() -> list[str]:
    """Names of NVIDIA GPUs, as their driver gives them."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, stdout=subprocess.PIPE, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return output.decode("utf-8", "replace").splitlines()


def free_bytes(directory: str) -> int:
    """On the disk that will hold `directory`."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory) or "/"
    return shutil.disk_usage(directory).free


def can_write(directory: str) -> bool:
    """Whether `directory` exists or could be made, and can be written."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory) or "/"
    return os.access(directory, os.W_OK | os.X_OK)


def marked_processes() -> dict[str, str]:
    """TianJi's processes of this user: pid and `run@host`."""
    found = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open("/proc/" + name + "/environ", "rb") as file:
                variables = file.read().split(b"\0")
        except OSError:
            continue
        for variable in variables:
            if variable.startswith(b"TIANJI_RUN="):
                found[name] = variable[11:].decode("utf-8", "replace")
    return found


def facts(directory: str, names: list[str]) -> dict[str, object]:
    """One JSON document."""
    total, available = memory_bytes()
    return {
        "hostname": platform.node(),
        "executable": sys.executable,
        "python": platform.python_version(),
        "packages": packages(names),
        "num_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        "memory_bytes": total,
        "memory_available_bytes": available,
        "disk_free_bytes": free_bytes(directory),
        "is_writable": can_write(directory),
        "gpus": gpus(),
        "leftovers": marked_processes(),
        "has_venv": has_venv(),
    }


def has_venv() -> bool:
    """Whether this interpreter can make virtual environments (Debian keeps that apart)."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return False
    return True


def listen(address: str, first: int, end: int) -> None:
    """Says which port, then accepts until standard input ends."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    last = "the range of ports is empty"
    for port in range(first, end):
        server = socket.socket(family, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((address, port))
            server.listen(64)
        except OSError as error:
            server.close()
            last = str(error)
            continue
        print(json.dumps({"port": port, "error": ""}), flush=True)
        sys.stdin.read()
        return
    print(json.dumps({"port": 0, "error": last}), flush=True)


def reach(targets: list[str]) -> dict[str, str]:
    """Why each target does not answer; an empty text if it does."""
    answers = {}
    for target in targets:
        address, _, port = target.rpartition(":")
        try:
            socket.create_connection((address, int(port)), timeout=CONNECT_S).close()
            answers[target] = ""
        except OSError as error:
            answers[target] = str(error)
    return answers


def clock() -> None:
    """For measuring offsets."""
    while sys.stdin.readline():
        line = json.dumps({"monotonic_ns": time.monotonic_ns(), "unix_ns": time.time_ns()})
        print(line, flush=True)


def main(arguments: list[str]) -> None:
    """Runs one verb."""
    verb, rest = arguments[0], arguments[1:]
    if verb == "facts":
        print(json.dumps(facts(rest[0], rest[1:])))
    elif verb == "listen":
        listen(rest[0], int(rest[1]), int(rest[2]))
    elif verb == "reach":
        print(json.dumps(reach(rest)))
    elif verb == "clock":
        clock()


if __name__ == "__main__":
    main(sys.argv[1:])
