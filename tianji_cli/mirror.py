"""Brings the files of a run here while it goes on: what is appended there is appended here.

Traces and logs only ever grow, so their sizes say what is new. A checkpoint never changes once it
is whole, so each is brought when it is there: what is lost with its host can still be resumed.
Everything else (summary, states) is replaced as a whole over there, and fetched once, at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from engine.errors import TianJiError
from engine.runtime.log_cap import ASIDE
from tianji_cli.connectors.base import Node

CHECKPOINTS = "checkpoints/"
PERIOD_S = 1.0
JOIN_S = 60.0


def is_growing(path: str) -> bool:
    """Whether a file of a run, by its path in the run's directory, is only ever appended to."""
    return (path.startswith("logs/") and path.endswith(".log")) or (
        path.startswith("trace/") and path.endswith(".jsonl")
    )


def fetch(node: Node, remote: str, local: Path, *, everything: bool) -> None:
    """Brings what is new of one host's part.

    Args:
        node: The host.
        remote: The run's directory there.
        local: `results/<run-id>`.
        everything: Also the files that are replaced as a whole.

    Raises:
        HostUnreachableError: The connection broke; what has come so far stays.
    """
    there = node.walk(remote)
    for name, size in sorted(there.items()):  # so a checkpoint's tensors come before its JSON
        path = local / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            continue
        if is_growing(name):
            known = path.stat().st_size if path.exists() else 0
            if size < known:  # it became too long over there, and was emptied
                path.replace(path.with_name(path.name + ASIDE))
                known = 0
            if size > known:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.write(node.read(f"{remote}/{name}", known))
        elif not path.name.endswith(".tmp") and (everything or _is_new_checkpoint(name, path)):
            data = node.read(f"{remote}/{name}")
            if len(data) < size:
                continue  # removed over there meanwhile, as an older checkpoint is
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_bytes(data)
            temporary.replace(path)
    _forget_old_checkpoints(there, local)


def _is_new_checkpoint(name: str, path: Path) -> bool:
    return name.startswith(CHECKPOINTS) and not path.exists()


def _forget_old_checkpoints(there: dict[str, int], local: Path) -> None:
    """Keeps as many as are kept over there; other hosts' groups are left alone."""
    kept = {name for name in there if name.startswith(CHECKPOINTS)}
    for directory in {Path(name).parent for name in kept if name.endswith(".json")}:
        for path in (local / directory).glob("v*"):
            if str(directory / path.name) not in kept:
                path.unlink()


class Mirror:
    """Follows the parts of a run on several hosts, each in a thread of its own.

    Args:
        parts: Host and the run's directory there.
        local: `results/<run-id>`.
    """

    def __init__(self, parts: Sequence[tuple[Node, str]], local: Path) -> None:
        self._local = local
        self._stop = threading.Event()
        self.errors: dict[str, TianJiError] = {}
        """Of the last attempt at each host."""
        self._threads = {
            node.name: threading.Thread(
                target=self._follow, args=(node, remote), name=f"mirror {node.name}", daemon=True
            )
            for node, remote in parts
        }
        for thread in self._threads.values():
            thread.start()

    def finish(self) -> dict[str, TianJiError]:
        """Brings the rest.

        Returns:
            By host, why not everything could be brought.
        """
        self._stop.set()
        for name, thread in self._threads.items():
            thread.join(JOIN_S)
            if thread.is_alive():
                self.errors[name] = TianJiError("its files did not come in time", where=name)
        return self.errors

    def _follow(self, node: Node, remote: str) -> None:
        while True:
            is_last = self._stop.wait(PERIOD_S)
            try:
                fetch(node, remote, self._local, everything=is_last)
                self.errors.pop(node.name, None)
            except TianJiError as error:
                self.errors[node.name] = error
            except OSError as error:
                self.errors[node.name] = TianJiError(
                    f"cannot be kept here: {error}", where=node.name
                )
            if is_last:
                return
