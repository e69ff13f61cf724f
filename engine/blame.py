"""Finds the line of user code that raised, which an error shows first."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from engine.errors import ConfigError, TianJiError

ERROR = "error: "
"""First word of a log's last lines if its process reports its error; the next are indented."""
_ROOT = Path(__file__).resolve().parent.parent
_OURS = tuple(f"{_ROOT / name}/" for name in ("engine", "tianji_cli"))
_STANDARD = tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib"))
_INSTALLED = tuple(f"{sysconfig.get_path(name)}/" for name in ("purelib", "platlib"))
_MACHINERY = tuple(
    f"{root}{name}/" for root in _INSTALLED for name in ("gymnasium", "torch", "numpy")
)


def told(error: BaseException) -> str:
    """The exception, the user's line that raised it, and its notes.

    ValueError: the simulator fell over
        walker.py:30 in step: raise ValueError("the simulator fell over")
        Walker-v0 raised this in step 5
    """
    lines = [summary_of(error)]
    if (place := place_of(error)) is not None:
        lines.append(f"    {place}")
    lines += [f"    {note}" for note in getattr(error, "__notes__", [])]
    return "\n".join(lines)


def summary_of(error: BaseException) -> str:
    """Type and message on one line, like the end of a traceback."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def place_of(error: BaseException) -> str | None:
    """`FILE:LINE in FUNCTION: SOURCE` of the user's line nearest to the error; of another
    package's line, if the user has none; None if only TianJi and Python are in the traceback."""
    frames = list(_frames(error.__traceback__))
    for is_candidate in (_is_users, _is_strange):
        for path, line, function in reversed(frames):
            if not path.startswith("<") and is_candidate(path):
                source = linecache.getline(path, line).strip()
                return f"{path}:{line} in {function}" + (f": {source}" if source else "")
    return None


def _is_users(path: str) -> bool:
    """Whether a file belongs neither to this program nor to Python or an installed package."""
    return not path.startswith((*_OURS, *_STANDARD, *_INSTALLED))


def _is_strange(path: str) -> bool:
    """Whether a file belongs to another package than those that every environment uses."""
    return path.startswith(_INSTALLED) and not path.startswith(_MACHINERY)


def _frames(chain: TracebackType | None) -> Iterator[tuple[str, int, str]]:
    for frame, line in traceback.walk_tb(chain):
        yield frame.f_code.co_filename, line, frame.f_code.co_name


@contextmanager
def blamed(what: str, where: str, fix: str = "") -> Iterator[None]:
    """Turns exceptions of user code in the block into configuration errors.

    Args:
        what: What failed, such as `Walker-v0 cannot be made`.
        where: Dotted key of the experiment.
        fix: What to do; by default the user's line.

    Raises:
        ConfigError: For any exception; a `TianJiError` passes unchanged.
    """
    try:
        yield
    except TianJiError:
        raise
    except Exception as error:
        raise ConfigError(f"{what}: {told(error)}", where=where, fix=fix) from error
