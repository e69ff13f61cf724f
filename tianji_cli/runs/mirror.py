"""Brings the files of a run here while it goes on: what is appended there is appended here.

Traces and logs only ever grow, so their sizes say what is new. A checkpoint never changes once it
is whole, so each is brought when it is there: what is lost with its host can still be resumed.
Everything else (summary, states) is replaced as a whole over there, and fetched once, at the end;
so is a log that was emptied over there, as it may have grown past what was known of it here.

A host is not trusted: `tianji_cli.storage.takings` says what it may hand over. Nothing that comes
is ever executed, read as what the user said, or written through a link; a checkpoint is kept only
if it has the checksum that it states, and only such a one makes older ones of the same learner go.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from engine.errors import ConfigError, HostUnreachableError, TianJiError
from engine.host.log_cap import ASIDE
from engine.trace.checkpoint_file import MAX_INFO_BYTES, CheckpointInfo, info_of, read_info
from tianji_cli.connectors.base import Node
from tianji_cli.runs.parallel import join_all
from tianji_cli.storage.locks import locked
from tianji_cli.storage.safe_files import append_descriptor, make_inside, write_file
from tianji_cli.storage.takings import MAX_TENSOR_BYTES, Share, takings_of

PERIOD_S = 1.0
FINISH_S = 60.0
"""Time-out for the remaining files of all hosts together; `tianji down` copies late ones."""
CHUNK_BYTES = 1 << 23


def fetch(node: Node, share: Share, remote: str, local: Path, *, everything: bool) -> None:
    """Brings what is new of one host's part.

    Args:
        node: The host.
        share: What it may hand over.
        remote: The run's directory there.
        local: `results/<run-id>`.
        everything: Also the files that are replaced as a whole.

    Raises:
        HostUnreachableError: The connection broke; what has come so far stays.
        PreflightError: A link here leads out of the run's directory.
        TianJiError: A trace over there is none.
    """
    there = node.walk(remote)
    takings = takings_of(there, share)
    for name, size in takings.growing.items():
        if everything and f"{name}{ASIDE}" in takings.replaced:
            _replace(node, f"{remote}/{name}", local, name, size)
        else:
            _append(node, f"{remote}/{name}", local, name, size)
    for name, size in takings.replaced.items() if everything else ():
        _replace(node, f"{remote}/{name}", local, name, size)
    for name in takings.checkpoints:
        with suppress(ConfigError):  # no checkpoint, or not yet whole: it is looked at again
            _take_checkpoint(node, remote, local, name, there)
    kept: dict[str, set[str]] = {}
    for name in takings.checkpoints:
        directory, _, file = name.rpartition("/")
        kept.setdefault(directory, set()).add(file)
    for directory, files in kept.items():
        _forget_older(local / directory, files)


def _append(node: Node, source: str, local: Path, name: str, size: int) -> None:
    """Brings what a file has grown by. One that is shorter there was too long, and was emptied."""
    path = local / name
    if _size_of(path) == size:
        return
    with _alone_in(local, path.parent):
        known = _size_of(path)
        if size < known:  # or another command has brought what came since we looked
            size = node.walk(str(PurePosixPath(source).parent)).get(path.name, known)
        if size < known:
            path.replace(path.with_name(path.name + ASIDE))
            known = 0
        if size > known:
            with os.fdopen(append_descriptor(path), "ab") as file:
                for chunk in _chunks(node, source, known, size - known):
                    _check_text(chunk, node, name)
                    file.write(chunk)


def _size_of(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _check_text(chunk: bytes, node: Node, name: str) -> None:
    """Raises TianJiError for a table with zero bytes: a file is full of them that is only said to
    be long."""
    if name.startswith("trace/") and b"\0" in chunk:
        raise TianJiError(f"{name} is no trace table", where=node.name)


def _chunks(node: Node, source: str, offset: int, num_bytes: int) -> Iterator[bytes]:
    """So many bytes of a file, or fewer if it has become shorter."""
    while num_bytes > 0:
        chunk = node.read(source, offset, min(num_bytes, CHUNK_BYTES))[:num_bytes]
        if not chunk:
            return
        yield chunk
        offset, num_bytes = offset + len(chunk), num_bytes - len(chunk)


def _replace(node: Node, source: str, local: Path, name: str, size: int) -> None:
    data = b"".join(_chunks(node, source, 0, size))
    if len(data) < size:
        return  # removed over there meanwhile
    path = local / name
    with _alone_in(local, path.parent):
        write_file(path, data)


@contextmanager
def _alone_in(local: Path, directory: Path) -> Iterator[None]:
    """Lets one command and one thread at a time change the files of a directory."""
    make_inside(local, directory)
    with locked(directory):
        yield


def _take_checkpoint(
    node: Node, remote: str, local: Path, name: str, there: dict[str, int]
) -> None:
    """Copies a checkpoint that is newer than all that are here: an older one can have been deleted
    here, and be there only because the run resumed from it.

    Raises:
        ConfigError: It is none, or has not the checksum that it states; nothing of it is kept.
    """
    path = local / name
    if any(other.name >= path.name for other in path.parent.glob("v*.json")):
        return
    data = node.read(f"{remote}/{name}", 0, MAX_INFO_BYTES + 1)
    info = info_of(data, path.name, f"{node.name}: {name}")
    tensors = f"{name.rpartition('/')[0]}/{info.tensors_name}"
    if there.get(tensors) != info.num_bytes or info.num_bytes > MAX_TENSOR_BYTES:
        raise ConfigError("its tensors are missing", where=f"{node.name}: {name}")
    with _alone_in(local, path.parent):
        _take_tensors(node, f"{remote}/{tensors}", local / tensors, info)
        write_file(path, data)


def _take_tensors(node: Node, source: str, path: Path, info: CheckpointInfo) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    digest = hashlib.sha256()
    try:
        with beside.open("xb") as file:
            for chunk in _chunks(node, source, 0, info.num_bytes):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != info.sha256:
            raise ConfigError("its tensors do not match its checksum", where=source)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _forget_older(directory: Path, there: Collection[str]) -> None:
    """Goes without what is older than all that is kept over there and was proved whole here."""
    oldest = min((path.name for path in _whole(directory) if path.name in there), default="")
    for path in _whole(directory):
        if path.name < oldest:
            tensors = read_info(path).tensors_name
            path.unlink(missing_ok=True)
            path.with_name(tensors).unlink(missing_ok=True)


def _whole(directory: Path) -> list[Path]:
    """The checkpoints here: each was checked when it came, or was written by this program."""
    found = []
    for path in sorted(directory.glob("v*.json")):
        with suppress(ConfigError):
            read_info(path)
            found.append(path)
    return found


class Mirror:
    """Follows the parts of a run on several hosts, each in a thread of its own.

    Args:
        parts: Host, what it may hand over, and the run's directory there.
        local: `results/<run-id>`.
    """

    def __init__(self, parts: Sequence[tuple[Node, Share, str]], local: Path) -> None:
        self._local = local
        self._stop = threading.Event()
        self.errors: dict[str, TianJiError] = {}
        """Of the last attempt at each host."""
        self._threads = {
            node.name: threading.Thread(
                target=self._follow,
                args=(node, share, remote),
                name=f"mirror {node.name}",
                daemon=True,
            )
            for node, share, remote in parts
        }
        for thread in self._threads.values():
            thread.start()

    def finish(self, is_urgent: Callable[[], bool] = lambda: False) -> dict[str, TianJiError]:
        """Brings the rest.

        Args:
            is_urgent: Asked meanwhile; see `parallel.in_parallel`.

        Returns:
            By host, why not everything could be copied.
        """
        self._stop.set()
        join_all(list(self._threads.values()), FINISH_S, is_urgent)
        found = dict(self.errors)
        for name, thread in self._threads.items():
            if thread.is_alive():
                found[name] = TianJiError("its files did not come in time", where=name)
        return found

    def _follow(self, node: Node, share: Share, remote: str) -> None:
        while True:
            is_last = self._stop.wait(PERIOD_S)
            try:
                fetch(node, share, remote, self._local, everything=is_last)
                self.errors.pop(node.name, None)
            except HostUnreachableError as error:
                self.errors[node.name] = error
                is_last = is_last or self._stop.is_set()  # it delivers no more
            except TianJiError as error:
                self.errors[node.name] = error
            except OSError as error:
                self.errors[node.name] = TianJiError(
                    f"cannot be kept here: {error}", where=node.name
                )
            if is_last:
                return
