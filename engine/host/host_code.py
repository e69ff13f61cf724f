"""C++ of `engine/compilation/cpp`, compiled for this host, to be linked into libraries.

It is the same for all libraries, so it is compiled once and kept beside them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.files import write_durably
from engine.host.account import cache_directory
from engine.host.cores import processor_features
from engine.host.cpp_compiler import compiler_identity
from engine.host.end_signals import END_SIGNAL, end_by
from engine.host.fork import end
from engine.host.process import name_process
from engine.host.tether import tethered
from engine.search_path import with_own_path

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC")
SCAN = "tianji_scan"
"""The object file of `scan.cpp`, which is in every library."""
ACCUMULATE = "tianji_accumulate"
"""That of `accumulate.cpp`."""
PRODUCT = "tianji_product"
"""That of `product.cpp`."""
FLAGS_OF_PRODUCT = (*FLAGS, "-pthread")
_SEARCHED = "LIBRARY_PATH"
_SOURCES = Path(__file__).parents[1] / "compilation" / "cpp"


def compile_object(source: str, directory: Path, name: str, flags: Sequence[str] = FLAGS) -> Path:
    """Compiles a source file of that folder to `NAME.o`, or takes the object that was kept.

    If another process or thread compiles it, this one waits for that. What another user has put
    there, or is damaged, is compiled anew.

    Raises:
        OSError, subprocess.CalledProcessError: It cannot be compiled.
    """
    identity = compiler_identity()
    if identity is None:
        raise FileNotFoundError("no C++ compiler here")
    compiled = directory / f"{name}.o"
    path, kept = _SOURCES / source, _place_of(source, name, flags, identity)
    with _alone(kept), tempfile.TemporaryDirectory(dir=directory) as aside:
        fresh = Path(aside) / compiled.name
        if (content := _intact(kept)) is not None:
            fresh.write_bytes(content)
        else:
            command = [identity[0], *flags, "-c", str(path), "-o", str(fresh)]
            subprocess.run(command, check=True, capture_output=True)
            _keep(fresh.read_bytes(), kept)
        fresh.replace(compiled)  # which another thread may be linking
    return compiled


class ProductInAdvance:
    """Compiles `product.cpp` beside what else happens before there are roles, if no object of it is
    kept: on another core than the one that reads libraries for these.

    If that fails, or is too late, whoever needs it compiles it.

    Args:
        env: Variables of the process that does it.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        with suppress(OSError):
            if not _has_product():
                self._process = subprocess.Popen(
                    tethered("engine.host.host_code", number=END_SIGNAL),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=with_own_path(env),
                )

    def close(self) -> None:
        """Ends it."""
        process, self._process = self._process, None
        if process is not None:
            end(process)


def main() -> None:
    """Compiles `product.cpp`, to be kept."""
    end_by(END_SIGNAL)
    name_process("tj-compiler")
    place = cache_directory() / "objects"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as directory:
        os.environ["TMPDIR"] = directory
        compile_object("product.cpp", Path(directory), PRODUCT, FLAGS_OF_PRODUCT)


def _has_product() -> bool:
    """Whether an object of `product.cpp` is kept, or cannot be made here."""
    identity = compiler_identity()
    if identity is None:
        return True
    return _intact(_place_of("product.cpp", PRODUCT, FLAGS_OF_PRODUCT, identity)) is not None


def _place_of(source: str, name: str, flags: Sequence[str], identity: tuple[str, int, int]) -> Path:
    """Where an object is kept."""
    digest = _digest(_SOURCES / source, (*identity, *flags))
    return cache_directory() / "objects" / f"{name}-{digest}.o"


def _digest(source: Path, made_by: Sequence[object]) -> str:
    """Of all that an object depends on."""
    depends_on = (*made_by, processor_features())
    digest = hashlib.blake2b(repr(depends_on).encode(), digest_size=16)
    for path in (source, *sorted(source.parent.glob("*.h"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _alone(kept: Path) -> Iterator[None]:
    """Meanwhile, no other process makes this object."""
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with kept.with_suffix(".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _intact(kept: Path) -> bytes | None:
    """An object that this user has kept, and that is as it was then."""
    try:
        with kept.open("rb") as file:
            if os.fstat(file.fileno()).st_uid != os.getuid():
                return None
            content = file.read()
        is_same = _checksum_path(kept).read_bytes() == _checksum(content)
    except (FileNotFoundError, PermissionError):
        return None
    return content if is_same else None


def _keep(content: bytes, kept: Path) -> None:
    """Writes an object, and its checksum after it."""
    _checksum_path(kept).unlink(missing_ok=True)
    write_durably(kept, content)
    write_durably(_checksum_path(kept), _checksum(content))


def _checksum_path(kept: Path) -> Path:
    return kept.with_suffix(".sha256")


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


@contextmanager
def found_by_linkers(directory: Path) -> Iterator[None]:
    """Meanwhile, linkers look for libraries and objects there."""
    before = os.environ.get(_SEARCHED)
    os.environ[_SEARCHED] = os.pathsep.join(filter(None, (str(directory), before)))
    try:
        yield
    finally:
        del os.environ[_SEARCHED]
        if before is not None:
            os.environ[_SEARCHED] = before


if __name__ == "__main__":
    main()
