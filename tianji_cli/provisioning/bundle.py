"""The files that are shipped to a host: the two packages as one tar file, named by its content.

The same sources give the same bytes on every machine, so a host that has this name has these files.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from engine import REQUIREMENTS
from engine.host.host_check import LIST_NAME
from engine.search_path import OWN_PACKAGES

NOT_SHIPPED = "tianji_cli/lab"
"""The lab is not shipped: it makes hosts, and no host needs it."""
OPTIONAL = (
    *("ale-py", "box2d", "envpool", "lbforaging", "minatar", "minigrid", "mpe2", "mujoco"),
    *("pettingzoo", "pygame-ce"),
)
"""Environment packages: pinned on the hosts if they are installed here."""
CONSTRAINTS_NAME = "constraints.txt"
MODULES_PREFIX = "own-"
"""Prefix of bundles with a user's own modules."""
_SUFFIXES = frozenset({".py", ".cpp", ".h", ".yaml"})
_DIGEST_CHARACTERS = 16


@dataclass(frozen=True)
class Bundle:
    """A tar file and its name.

    Attributes:
        list_sha256: Of its list of files, with which a host checks that they are complete.
    """

    name: str
    data: bytes
    list_sha256: str = ""


def make_bundle(root: Path, constraints: str) -> Bundle:
    """Packs the packages below `root`, and the constraints beside them.

    Two calls on equal files give equal bundles: names are sorted, times and owners are zero.
    """
    files = {CONSTRAINTS_NAME: constraints.encode()}
    for package in OWN_PACKAGES:
        for path in (root / package).rglob("*"):
            inside = path.relative_to(root)
            is_wanted = path.suffix in _SUFFIXES and not inside.is_relative_to(NOT_SHIPPED)
            if is_wanted and path.is_file():
                files[inside.as_posix()] = path.read_bytes()
    return _packed("", files, tarfile.USTAR_FORMAT)


def pack_modules(files: Mapping[str, bytes]) -> Bundle:
    """Packs the user's own modules, by relative path."""
    return _packed(MODULES_PREFIX, files, tarfile.GNU_FORMAT)


def _packed(prefix: str, files: Mapping[str, bytes], tar_format: int) -> Bundle:
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    listed = "".join(lines).encode()
    files = {**files, LIST_NAME: listed}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tar_format) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(files[name]))
    data = stream.getvalue()
    name = prefix + hashlib.sha256(data).hexdigest()[:_DIGEST_CHARACTERS]
    return Bundle(name, data, hashlib.sha256(listed).hexdigest())


def source_root() -> Path:
    """The directory that contains this package."""
    return Path(__file__).resolve().parents[2]


def pinned_constraints() -> str:
    """Exact versions for the hosts: those used here, which were tested together.

    Local version labels such as `+cpu` are dropped, as package indexes do not offer them.
    """
    lines = [f"{name}=={_version(name)}" for name in REQUIREMENTS]
    for name in OPTIONAL:
        try:
            lines.append(f"{name}=={_version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return "\n".join(lines) + "\n"


def _version(name: str) -> str:
    return metadata.version(name).partition("+")[0]


def environment_name(constraints: str, python_minor: str) -> str:
    """Name of the virtual environment for these constraints."""
    digest = hashlib.sha256(f"{python_minor}\n{constraints}".encode()).hexdigest()
    return f"py{python_minor}-{digest[:_DIGEST_CHARACTERS]}"
