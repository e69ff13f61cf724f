"""Copies the files of a run here while it runs: what a host appends is appended here.

Traces and logs only grow, so their sizes show what is new. A checkpoint never changes once it is
complete, so each is copied as soon as it exists: a run whose host is lost can still be resumed.
All other files (summary, states) are replaced as a whole on their host, and copied once, at the
end; so is a log that was emptied there, since it can have grown past the size known here.

A host is not trusted: `tianji_cli.storage.takings` lists what is accepted from it. Received files
are never executed, never taken for the user's input, and never written through a link. A checkpoint
is kept only if its checksum matches, and only such a one replaces older ones of the same learner.
The same holds for a saved replay store, of which only new files are copied.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from engine.errors import ConfigError, HostUnreachableError, TianJiError
from engine.files import ASIDE
from engine.trace.checkpoint_file import MAX_INFO_BYTES, info_of, read_info
from engine.trace.replay_file import MAX_INFO_BYTES as MAX_REPLAY_INFO_BYTES
from engine.trace.replay_file import ReplayInfo, read_replay_info, replay_info_of
from tianji_cli.connectors.base import Node
from tianji_cli.runs.parallel import join_all
from tianji_cli.storage.safe_files import append_descriptor, locked, make_inside, write_file
from tianji_cli.storage.takings import MAX_REPLAY_BYTES, MAX_TENSOR_BYTES, Share, takings_of

PERIOD_S = 1.0
FINISH_S = 60.0
"""Time-out for the remaining files of all hosts together; `tianji down` copies late ones."""
CHUNK_BYTES = 1 << 23


def fetch(node: Node, share: Share, remote: str, local: Path, *, everything: bool) -> None:
    """Copies new data of one host's part.

    Args:
        node: The host.
        share: What is accepted from it.
        remote: The run's directory there.
        local: `results/<run-id>`.
        everything: Also the files that are replaced as a whole.

    Raises:
        HostUnreachableError: The connection broke; data copied so far is kept.
        PreflightError: A link here leads out of the run's directory.
        TianJiError: A trace there is invalid.
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
        with suppress(ConfigError):  # no checkpoint, or incomplete: it is checked again
            _take_checkpoint(node, remote, local, name, there)
    for directory, files in _by_directory(takings.checkpoints).items():
        _forget_older(local / directory, files)
    until_s = math.inf if everything else time.monotonic() + PERIOD_S
    for directory, files in _by_directory(takings.replays).items():
        _take_replays(node, f"{remote}/{directory}", local, local / directory, files, until_s)


def _by_directory(names: Sequence[str]) -> dict[str, list[str]]:
    """The names of files, in their order."""
    found: dict[str, list[str]] = {}
    for name in names:
        directory, _, file = name.rpartition("/")
        found.setdefault(directory, []).append(file)
    return found


def _append(node: Node, source: str, local: Path, name: str, size: int) -> None:
    """Copies what was appended to a file. A shorter one was emptied because of its size."""
    path = local / name
    if _size_of(path) == size:
        return
    with _alone_in(local, path.parent):
        known = _size_of(path)
        if size < known:  # or another command has copied it in the meantime
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
    """Raises TianJiError for a table with zero bytes, the contents of a sparse file."""
    if name.startswith("trace/") and b"\0" in chunk:
        raise TianJiError(f"{name} is no trace table", where=node.name)


def _chunks(node: Node, source: str, offset: int, num_bytes: int) -> Iterator[bytes]:
    """This many bytes of a file, or fewer if it was truncated."""
    while num_bytes > 0:
        chunk = node.read(source, offset, min(num_bytes, CHUNK_BYTES))[:num_bytes]
        if not chunk:
            return
        yield chunk
        offset, num_bytes = offset + len(chunk), num_bytes - len(chunk)


def _replace(node: Node, source: str, local: Path, name: str, size: int) -> None:
    data = b"".join(_chunks(node, source, 0, size))
    if len(data) < size:
        return  # removed there in the meantime
    path = local / name
    with _alone_in(local, path.parent):
        write_file(path, data)


@contextmanager
def _alone_in(local: Path, directory: Path) -> Iterator[None]:
    """Locks a directory, so that one command and thread at a time changes its files."""
    make_inside(local, directory)
    with locked(directory):
        yield


def _take_checkpoint(
    node: Node, remote: str, local: Path, name: str, there: dict[str, int]
) -> None:
    """Copies a checkpoint that is newer than all that are here: an older one can have been deleted
    here, and be there only because the run resumed from it.

    Raises:
        ConfigError: It is invalid, or its checksum does not match; nothing of it is kept.
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
        source = f"{remote}/{tensors}"
        _take_verified(node, source, local / tensors, info.num_bytes, info.sha256)
        write_file(path, data)


def _take_replays(
    node: Node, remote: str, local: Path, directory: Path, names: Sequence[str], until_s: float
) -> None:
    """Copies the saved replay stores of one buffer, as far as time allows: traces come first.

    They share most of their files, so a newer one costs little. Only a complete one replaces older
    ones that the host no longer keeps.
    """
    here = {path.name for path in directory.glob("v*.json")}
    infos: dict[str, ReplayInfo] = {}
    for name in names:
        if name in here or any(name < other for other in here):
            continue
        data = node.read(f"{remote}/{name}", 0, MAX_REPLAY_INFO_BYTES + 1)
        with suppress(ConfigError):  # incomplete, or removed: it is checked again
            infos[name] = info = replay_info_of(data, name, f"{node.name}: {remote}/{name}")
            if not _take_replay(node, remote, local, directory, info, until_s):
                break
            with _alone_in(local, directory):
                write_file(directory / name, data)
            here.add(name)
    if here:
        with _alone_in(local, directory):
            _forget_older_replays(directory, names, infos.values())


def _take_replay(
    node: Node, remote: str, local: Path, directory: Path, info: ReplayInfo, until_s: float
) -> bool:
    """Copies the missing files of a saved store.

    Returns:
        False if time is up.

    Raises:
        ConfigError: It is too large, or a checksum does not match.
    """
    if info.num_kept * info.rollout_bytes + info.num_bytes > MAX_REPLAY_BYTES:
        raise ConfigError("its replay store is too large", where=node.name)
    checksums = info.checksums
    for name, num_bytes in info.sizes.items():
        if os.path.lexists(directory / name):
            continue
        if time.monotonic() > until_s:
            return False
        with _alone_in(local, directory):
            source = f"{remote}/{name}"
            _take_verified(node, source, directory / name, num_bytes, checksums[name])
    return True


def _forget_older_replays(
    directory: Path, there: Sequence[str], coming: Iterable[ReplayInfo]
) -> None:
    """Deletes saved stores that the host no longer keeps, and files that no other one needs."""
    here = sorted(directory.glob("v*.json"))
    newest = max((path.name for path in here if path.name in there), default="")
    wanted = {name for info in coming for name in info.sizes}
    for path in here:
        if path.name < newest and path.name not in there:
            path.unlink()
            continue
        with suppress(ConfigError):
            wanted |= set(read_replay_info(path).sizes)
    for pattern in ("v*.safetensors", "s*.rollouts"):
        for file in directory.glob(pattern):
            if file.name not in wanted:
                file.unlink()


def _take_verified(node: Node, source: str, path: Path, num_bytes: int, checksum: str) -> None:
    """Copies a file of which size and checksum are known.

    Raises:
        ConfigError: The checksum does not match; nothing of it is kept.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    digest = hashlib.sha256()
    try:
        with beside.open("xb") as file:
            for chunk in _chunks(node, source, 0, num_bytes):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != checksum:
            raise ConfigError("it does not match its checksum", where=source)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _forget_older(directory: Path, there: Collection[str]) -> None:
    """Deletes checkpoints that the host no longer keeps, if a newer one of it was verified here."""
    whole = _whole(directory)
    newest = max((path.name for path in whole if path.name in there), default="")
    for path in whole:
        if path.name < newest and path.name not in there:
            tensors = read_info(path).tensors_name
            path.unlink(missing_ok=True)
            path.with_name(tensors).unlink(missing_ok=True)


def _whole(directory: Path) -> list[Path]:
    """The checkpoints here: each was verified on arrival, or written by this program."""
    found = []
    for path in sorted(directory.glob("v*.json")):
        with suppress(ConfigError):
            read_info(path)
            found.append(path)
    return found


class Mirror:
    """Copies the parts of a run from several hosts, each in its own thread.

    Args:
        parts: Host, what is accepted from it, and the run's directory there.
        local: `results/<run-id>`.
    """

    def __init__(self, parts: Sequence[tuple[Node, Share, str]], local: Path) -> None:
        self._local = local
        self._stop = threading.Event()
        self.errors: dict[str, TianJiError] = {}
        """Error of the last attempt at each host."""
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
        """Copies the rest.

        Args:
            is_urgent: Polled; see `parallel.in_parallel`.

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
