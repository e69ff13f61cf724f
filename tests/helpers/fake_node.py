"""A host that exists in memory only: what is run there is remembered, answers are given."""

from __future__ import annotations

import json
import platform
import threading
from collections.abc import Callable, Mapping, Sequence

from engine import REQUIREMENTS
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.base import AccessFacts, Completed


def facts(**more: object) -> dict[str, object]:
    """What a healthy host answers to the probe."""
    return {
        "hostname": "fake",
        "executable": "/usr/bin/python3",
        "python": platform.python_version(),
        "packages": dict.fromkeys(REQUIREMENTS, "1.0"),
        "num_cores": 4,
        "memory_bytes": 8 << 30,
        "memory_available_bytes": 4 << 30,
        "disk_free_bytes": 8 << 30,
        "is_writable": True,
        "gpus": [],
        "leftovers": {},
        "has_venv": True,
        **more,
    }


class FakeConnection:
    """A supervisor that only knows whether it was let go."""

    to_supervisor = from_supervisor = -1

    def __init__(self, host: str) -> None:
        self.host = host
        self.is_closed = False

    def close_input(self) -> None:
        self.is_closed = True

    def wait(self, timeout_s: float) -> bool:
        return True

    def error_output(self) -> str:
        return ""

    def close(self) -> None:
        self.is_closed = True


class FakeNode:
    """A host.

    Args:
        host: From the inventory.
        pythons: What each interpreter answers to the probe; others do not exist.
        fails: Commands (by their first words) that end with code 1 and these words.
    """

    def __init__(
        self,
        host: Host,
        pythons: Mapping[str, dict[str, object]],
        fails: Mapping[str, str] | None = None,
    ) -> None:
        self.name = host.name
        self.is_remote = True
        self.access = AccessFacts(user="ann", endpoint="ann@fake", address="192.0.2.9")
        self.pythons = dict(pythons)
        self.fails = dict(fails or {})
        self.files: dict[str, bytes] = {}
        self.damaged: dict[str, str] = {}
        """What is wrong with a bundle or environment, by its place."""
        self.commands: list[list[str]] = []
        self.spawned: list[tuple[list[str], dict[str, str]]] = []
        self.is_closed = False
        self.before_run: Callable[[Sequence[str]], None] = lambda _: None

    def expand(self, path: str) -> str:
        return path.replace("~", "/home/ann", 1) if path.startswith("~") else path

    def run(self, command: Sequence[str], timeout_s: float) -> Completed:
        self.before_run(command)
        self.commands.append(list(command))
        if "-c" in command and "facts" in command:
            answer = self.pythons.get(command[0])
            if answer is None:
                return Completed(127, "", "not found")
            return Completed(0, json.dumps(answer), "")
        if "-c" in command and command[3] in ("bundle", "environment"):
            is_bundle = command[3] == "bundle"
            place = command[4] if is_bundle else command[0].removesuffix("/bin/python")
            is_there = place in self.files or not is_bundle
            return Completed(
                0, json.dumps({"is_there": is_there, "damage": self.damaged.get(place, "")}), ""
            )
        for start, words in self.fails.items():
            if " ".join(command).startswith(start):
                return Completed(1, "", words)
        if command[0] == "mv":
            self._move(*command[-2:])
        if command[0] == "sh" and "mv -T" in command[2]:
            beside, place = command[-2:]
            if place in self.damaged:
                self._move(place, f"{beside}.old")
                del self.damaged[place]
            self._move(beside, place)
        if command[0] == "touch":
            self.files[command[1]] = b""
        return Completed(0, "", "")

    def _move(self, source: str, place: str) -> None:
        inside = {p for p in self.files if p == source or p.startswith(f"{source}/")}
        self.files |= {place + p.removeprefix(source): self.files.pop(p) for p in inside}
        self.files[place] = b""

    def spawn(
        self, command: Sequence[str], env: Mapping[str, str], directory: str | None = None
    ) -> FakeConnection:
        self.spawned.append((list(command), dict(env)))
        return FakeConnection(self.name)

    def put(self, path: str, data: bytes) -> None:
        self.files[path] = data

    def exists(self, path: str) -> bool:
        return path in self.files

    def read(self, path: str, offset: int = 0, max_bytes: int = -1) -> bytes:
        return self.files.get(path, b"")[offset:][: max_bytes if max_bytes >= 0 else None]

    def walk(self, root: str) -> dict[str, int]:
        start = f"{root}/"
        return {p[len(start) :]: len(d) for p, d in self.files.items() if p.startswith(start)}

    def close(self) -> None:
        self.is_closed = True


Reach = Callable[[Host, threading.Event], FakeNode]
