"""Brings the files of a run here while it goes on: what is appended there is appended here.

Traces and logs only ever grow, so their sizes say what is new. A checkpoint never changes once it
is whole, so each is brought when it is there: what is lost with its host can still be resumed.
Everything else (summary, states) is replaced as a whole over there, and fetched once, at the end;
so is a log that was emptied over there, as it may have grown past what was known of it here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from engine.errors import HostUnreachableError, TianJiError
from engine.runtime.log_cap import ASIDE
from tianji_cli.connectors.base import Node
from tianji_cli.locks import locked
from tianji_cli.parallel import join_all

CHECKPOINTS = "checkpoints/"
PERIOD_S = 1.0
FINISH_S = 60.0
"""How long the rest of all hosts' files may take, together; `tianji down` brings what is late."""


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
        path, source = local / name, f"{remote}/{name}"
        if ".." in Path(name).parts or Path(name).is_absolute() or name.endswith(".tmp"):
            continue
        is_last_word = everything and f"{name}{ASIDE}" in there
        if is_growing(name) and not is_last_word:
            _append(node, source, path, size)
        elif is_last_word or _is_wanted(name, path, everything):
            _replace(node, source, path, size)
    _forget_old_checkpoints(there, local)


def _append(node: Node, source: str, path: Path, size: int) -> None:
    """Brings what a file has grown by. One that is shorter there was too long, and was emptied."""
    if path.exists() and path.stat().st_size == size:
        return
    with _alone_in(path.parent):
        known = path.stat().st_size if path.exists() else 0
        if size < known:  # or another command has brought what came since we looked
            size = node.walk(str(PurePosixPath(source).parent)).get(path.name, known)
        if size < known:
            path.replace(path.with_name(path.name + ASIDE))
            known = 0
        if size > known:
            with path.open("ab") as file:
                file.write(node.read(source, known))


def _replace(node: Node, source: str, path: Path, size: int) -> None:
    data = node.read(source)
    if len(data) < size:
        return  # removed over there meanwhile, as an older checkpoint is
    with _alone_in(path.parent):
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(data)
        temporary.replace(path)


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Lets one command and one thread at a time change the files of a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory):
        yield


def _is_wanted(name: str, path: Path, everything: bool) -> bool:
    """Of a checkpoint, whether it is newer than all that are here: it may be an old one that was
    forgotten here, and was put there only to go on from."""
    if not name.startswith(CHECKPOINTS):
        return everything
    newest = max(map(_version_of, path.parent.glob("v*.json")), default="")
    return not path.exists() and _version_of(path) >= newest


def _version_of(path: Path) -> str:
    """`v0000000012-<digits>.safetensors` -> `v0000000012`; versions sort as words."""
    return path.stem.partition("-")[0]


def _forget_old_checkpoints(there: dict[str, int], local: Path) -> None:
    """Goes without what is older than all that is kept over there; others' are left alone."""
    kept = [Path(name) for name in there if name.startswith(CHECKPOINTS)]
    for directory in {path.parent for path in kept if path.suffix == ".json"}:
        oldest = min(_version_of(path) for path in kept if path.parent == directory)
        for path in (local / directory).glob("v*"):
            if _version_of(path) < oldest:
                path.unlink(missing_ok=True)


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

    def finish(self, is_urgent: Callable[[], bool] = lambda: False) -> dict[str, TianJiError]:
        """Brings the rest.

        Args:
            is_urgent: Asked meanwhile; see `parallel.in_parallel`.

        Returns:
            By host, why not everything could be brought.
        """
        self._stop.set()
        join_all(list(self._threads.values()), FINISH_S, is_urgent)
        found = dict(self.errors)
        for name, thread in self._threads.items():
            if thread.is_alive():
                found[name] = TianJiError("its files did not come in time", where=name)
        return found

    def _follow(self, node: Node, remote: str) -> None:
        while True:
            is_last = self._stop.wait(PERIOD_S)
            try:
                fetch(node, remote, self._local, everything=is_last)
                self.errors.pop(node.name, None)
            except HostUnreachableError as error:
                self.errors[node.name] = error
                is_last = is_last or self._stop.is_set()  # this connection brings nothing any more
            except TianJiError as error:
                self.errors[node.name] = error
            except OSError as error:
                self.errors[node.name] = TianJiError(
                    f"cannot be kept here: {error}", where=node.name
                )
            if is_last:
                return
