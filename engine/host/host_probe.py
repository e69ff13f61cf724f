"""Probes a host with any Python from 3.7 on: no package is needed, not even TianJi.

It is sent as text (`python3 -c <this file> facts ...`) to hosts that have nothing of TianJi yet.

    facts DIR PACKAGE...          one JSON document about host, interpreter, packages and disk
    listen ADDRESS FIRST END NAME listens on a free port of the range until standard input ends
    reach [ADDRESS]:PORT=NAME...  one JSON document: which of them answer with that name
    index NAME==VERSION...        one JSON document: which of them pip could get
    clock                         answers each line on standard input with both clocks
"""

from __future__ import annotations

import sys

if "" in sys.path:  # a `token.py` in the home directory is not what the imports below mean
    sys.path.remove("")

import json
import os
import platform
import select
import shutil
import socket
import subprocess
import threading
import time

CONNECT_S = 3.0
INDEX_S = 20.0


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
    """(total, available), in bytes; zeros without /proc."""
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


def num_cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than its groups' quotas
    of processor time amount to; 1 if unknown."""
    if not hasattr(os, "sched_getaffinity"):
        return 1
    bound = len(os.sched_getaffinity(0))
    return max(1, min([bound, *(int(quota) for quota in quotas())]))


def quotas(root: str = "/") -> list[float]:
    """Processor time that each control group of this process may have in a second, in seconds.

    In a container the groups' paths can be those of its host: then only the outermost is found.
    """
    found = []
    for line in _lines(root + "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "cpu") and "cpu" not in controllers.split(","):
            continue
        path = path.strip("/")
        while True:
            found += _quota(os.path.join(root, "sys/fs/cgroup", controllers, path))
            if not path:
                break
            path = path.rpartition("/")[0]
    return found


def _quota(group: str) -> list[float]:
    """That of one group, of version 2 or 1; empty if it has none."""
    words = " ".join(_lines(group + "/cpu.max")).split()
    if not words:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = [word for name in names for word in _lines(group + "/" + name)]
    if len(words) != 2 or not all(word.isdigit() for word in words):  # max, or -1
        return []
    return [int(words[0]) / int(words[1])] if int(words[1]) else []


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []


def gpus() -> list[str]:
    """Names of NVIDIA GPUs, from their driver."""
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
        "num_cores": num_cores(),
        "memory_bytes": total,
        "memory_available_bytes": available,
        "disk_free_bytes": free_bytes(directory),
        "is_writable": can_write(directory),
        "gpus": gpus(),
        "leftovers": marked_processes(),
        "has_venv": has_venv(),
    }


def has_venv() -> bool:
    """Whether this interpreter can make virtual environments (a separate package on Debian)."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return False
    return True


def resolve(address: str, port: int) -> tuple[int, tuple[object, ...]]:
    """Family and socket address; that of `fe80::1%eth0` has the number of its network in it."""
    found = socket.getaddrinfo(address, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    return found[0][0], found[0][4]


def listen(address: str, first: int, end: int, name: str) -> None:
    """Prints its port, then sends its name to every connection, until standard input ends."""
    last = "the range of ports is empty"
    for port in range(first, end):
        try:
            family, where = resolve(address, port)
            server = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            last = str(error)
            break
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(where)
            server.listen(64)
        except OSError as error:
            server.close()
            last = str(error)
            continue
        print(json.dumps({"port": port, "error": ""}), flush=True)
        tell_name(server, name)
        return
    print(json.dumps({"port": 0, "error": last}), flush=True)


def tell_name(server: socket.socket, name: str) -> None:
    """Answers connections until standard input ends."""
    while True:
        ready, _, _ = select.select([server, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = server.accept()
        with connection:
            try:
                connection.settimeout(CONNECT_S)
                connection.sendall(name.encode())
            except OSError:
                continue


def reach(targets: list[str]) -> dict[str, str]:
    """Why each target does not answer; an empty text if it does.

    Args:
        targets: `[ADDRESS]:PORT=NAME`. Another name in the answer means another host: the address
            leads to this host itself, for example, as 127.0.0.1 does everywhere.
    """
    answers: dict[str, str] = {}
    threads = [threading.Thread(target=try_one, args=(item, answers)) for item in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def try_one(item: str, answers: dict[str, str]) -> None:
    """Connects to one target."""
    target, _, name = item.partition("=")
    address, _, port = target.rpartition(":")
    try:
        where = (address.strip("[]"), int(port))
        with socket.create_connection(where, timeout=CONNECT_S) as connection:
            said = b""
            while len(said) < len(name.encode()):
                part = connection.recv(4096)
                if not part:
                    break
                said += part
        is_right = said == name.encode()
        answers[item] = "" if is_right else "another host or program answers there"
    except OSError as error:
        answers[item] = str(error)


def index(requirements: list[str]) -> dict[str, str]:
    """Why pip there cannot get each of `NAME==VERSION`; an empty text if it can.

    Only the index is queried, nothing is downloaded. Without pip, the one of a virtual environment
    is used, as it would be for the installation.
    """
    processes = {}
    for requirement in requirements:
        command = [sys.executable, "-m", "pip", "index", "versions", requirement.partition("==")[0]]
        command += ["--disable-pip-version-check", "--no-input", "--timeout", "5", "--retries", "0"]
        command += ["--pre"]
        processes[requirement] = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **bundled_pip()},
            cwd="/",
        )
    return {name: index_answer(name, process) for name, process in processes.items()}


def index_answer(requirement: str, process: subprocess.Popen[bytes]) -> str:
    """The result of pip."""
    try:
        out, err = process.communicate(timeout=INDEX_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"no answer within {INDEX_S:.0f} s"
    version = requirement.partition("==")[2]
    listed = out.decode("utf-8", "replace").replace(",", " ").replace("(", " ").replace(")", " ")
    found = {word.partition("+")[0] for word in listed.split()}
    if process.returncode == 0 and version.partition("+")[0] in found:
        return ""
    if process.returncode == 0:
        return "it has no " + requirement
    lines = err.decode("utf-8", "replace").strip().splitlines()
    wrong = [line for line in lines if line.startswith("ERROR")] or lines or ["pip says nothing"]
    return wrong[-1]


def bundled_pip() -> dict[str, str]:
    """Makes `python -m pip` work where only virtual environments have pip."""
    try:
        import pip  # noqa: F401
    except ImportError:
        import ensurepip

        folder = os.path.join(os.path.dirname(ensurepip.__file__), "_bundled")
        for place in (folder, "/usr/share/python-wheels"):
            names = os.listdir(place) if os.path.isdir(place) else []
            for name in names:
                if name.startswith("pip-") and name.endswith(".whl"):
                    return {"PYTHONPATH": os.path.join(place, name)}
    return {}


def clock() -> None:
    """Answers for measuring clock offsets."""
    while sys.stdin.readline():
        line = json.dumps({"monotonic_ns": time.monotonic_ns(), "unix_ns": time.time_ns()})
        print(line, flush=True)


def main(arguments: list[str]) -> None:
    """Runs one verb."""
    verb, rest = arguments[0], arguments[1:]
    if verb == "facts":
        print(json.dumps(facts(rest[0], rest[1:])))
    elif verb == "listen":
        listen(rest[0], int(rest[1]), int(rest[2]), rest[3])
    elif verb == "reach":
        print(json.dumps(reach(rest)))
    elif verb == "index":
        print(json.dumps(index(rest)))
    elif verb == "clock":
        clock()


if __name__ == "__main__":
    main(sys.argv[1:])
