"""Removes the files of a run, and nothing else: no link is followed, no other file is touched."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from engine.errors import CleanupError, ConfigError
from tianji_cli.storage.run_dir import RunPaths, is_of_run

WRITING = ("w", "a", "r+", "a+")


@dataclass(frozen=True)
class RunFiles:
    """What deleting a run removes.

    Attributes:
        paths: The run.
        num_files: Files and links.
        freed_bytes: Sizes of files that have no other name elsewhere.
        kept: Entries of its directory that TianJi did not write; they stay, and so does it.
    """

    paths: RunPaths
    num_files: int
    freed_bytes: int
    kept: tuple[str, ...]


def files_of(paths: RunPaths) -> RunFiles:
    """Counts the files of a run.

    Raises:
        ConfigError: Its directory is a link or no directory, or another file system is mounted in
            it; or a process of this user is writing there.
        OSError: A directory cannot be read.
    """
    root = paths.root
    found = os.lstat(root)
    if not stat.S_ISDIR(found.st_mode):
        what = "a link" if stat.S_ISLNK(found.st_mode) else "no directory"
        raise ConfigError(f"it is {what}, not a run's own directory", where=str(root))
    _refuse_written(root)
    names = sorted(os.listdir(root))
    sizes: dict[int, list[int]] = {}
    num_files = 0
    for name in filter(is_of_run, names):
        for place, status in _below(root / name):
            if status.st_dev != found.st_dev:
                raise ConfigError(
                    "another file system is mounted there", where=str(place), fix="unmount it first"
                )
            if stat.S_ISDIR(status.st_mode):
                continue
            num_files += 1
            if stat.S_ISREG(status.st_mode):
                entry = sizes.setdefault(status.st_ino, [status.st_size, status.st_nlink])
                entry[1] -= 1
    freed_bytes = sum(size for size, links_elsewhere in sizes.values() if links_elsewhere <= 0)
    kept = tuple(name for name in names if not is_of_run(name))
    return RunFiles(paths, num_files, freed_bytes, kept)


def _below(place: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """An entry, and all below it if it is a directory itself."""
    status = os.lstat(place)
    yield place, status
    if stat.S_ISDIR(status.st_mode):
        for name in sorted(os.listdir(place)):
            yield from _below(place / name)


def _refuse_written(root: Path) -> None:
    """Raises ConfigError if a process of this user has a file below open for writing."""
    inside = f"{root.resolve()}{os.sep}"
    for process in psutil.process_iter():
        try:
            opened = process.open_files()
        except (psutil.Error, OSError):
            continue  # another user's, or gone
        for file in opened:
            is_written = getattr(file, "mode", "w") in WRITING
            if is_written and file.path.startswith(inside):
                raise ConfigError(
                    f"process {process.pid} is writing {file.path.removeprefix(inside)}",
                    where=str(root),
                    fix="end it first",
                )


def delete(files: RunFiles) -> None:
    """Removes the files of a run, its manifest last, and its directory if that is empty then.

    Until the manifest is gone it is a run, so that an interrupted deletion can be repeated.

    Raises:
        CleanupError: Something of it is left.
    """
    root = files.paths.root
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            names = filter(is_of_run, os.listdir(descriptor))
            for name in sorted(names, key=lambda name: name == files.paths.manifest.name):
                _remove(name, descriptor)
        finally:
            os.close(descriptor)
        if not any(root.iterdir()):
            root.rmdir()
    except OSError as error:
        raise CleanupError(
            f"not all of it is removed: {error.strerror or error}",
            where=str(error.filename or root),
            fix="free permissions there, then delete it again",
        ) from error


def _remove(name: str, directory: int) -> None:
    """Removes an entry of an open directory; below it, links are removed as links."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(name, dir_fd=directory)
    else:
        os.unlink(name, dir_fd=directory)
