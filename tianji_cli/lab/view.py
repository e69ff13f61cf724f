"""What a host sees of this machine: its root file system, with the exceptions listed here."""

from __future__ import annotations

import msgspec

from tianji_cli.lab.plan import LabRequest

OWN = ("/tmp", "/run", "/dev", "/proc", "/sys")
"""What every host has its own of, empty or nearly so."""


def must_share(path: str, mount_points: tuple[str, ...], hidden: tuple[str, ...]) -> bool:
    """Whether hosts lack a directory of this machine unless it is shared with them.

    A host's disk shows this machine's root file system: neither what is mounted below it, nor what
    a host has its own of, nor what is hidden.

    >>> must_share("/opt/venv", ("/", "/opt"), ())
    True
    >>> must_share("/usr", ("/", "/proc"), ())
    False
    """
    return covered(path, (*OWN, *hidden, *(point for point in mount_points if point != "/")))


def is_below(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or inside it; both absolute and normal."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def outermost(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Sorted, without duplicates and without directories inside others."""
    unique = sorted(set(paths))
    return tuple(
        path
        for path in unique
        if not any(path != other and is_below(path, other) for other in unique)
    )


class VisibleInterpreter(msgspec.Struct, frozen=True):
    """The Python that runs TianJi.

    Attributes:
        path: Its executable, inside a virtual environment if it is one's.
        prefixes: The directories that it needs: its environment's, and its installation's.
    """

    path: str
    prefixes: tuple[str, ...]


def complete(
    request: LabRequest,
    directory: str,
    *,
    mounts: tuple[str, ...],
    homes: tuple[str, ...],
    interpreter: VisibleInterpreter,
) -> LabRequest:
    """Fills in what is hidden, and what must be shared so that the interpreter runs in a host.

    Args:
        request: As the user wrote it.
        directory: The lab's own; hosts do not have it.
        mounts: This machine's mount points.
        homes: Home directories; hosts have empty ones.
        interpreter: For the inventory.
    """
    gone = outermost((*request.hide, directory))
    fresh = tuple(home for home in outermost(homes) if home != "/" and not covered(home, gone))
    hide = tuple(path for path in gone if not covered(path, (*OWN, *fresh)))
    lost = (*fresh, *hide)
    needed = [path for path in interpreter.prefixes if must_share(path, mounts, lost)]
    return msgspec.structs.replace(
        request,
        hide=hide,
        fresh=fresh,
        share=outermost((*request.share, *needed)),
        python=interpreter.path,
    )


def covered(path: str, directories: tuple[str, ...]) -> bool:
    """Whether `path` is below any of the directories."""
    return any(is_below(path, directory) for directory in directories)
