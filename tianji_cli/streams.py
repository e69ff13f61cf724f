"""The command's standard streams, wrapped so that output never fails with a traceback.

A stream may be closed, may be unable to show a character, or may lie on a disk that is full.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from engine.errors import PreflightError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

NUM_STREAMS = 3
"""Standard input, output and error are descriptors 0, 1 and 2."""


class _Stdout(io.FileIO):
    """Standard output that says what is wrong where it takes no more."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise  # whoever reads it has seen enough
        except OSError as error:
            raise PreflightError(
                f"it cannot be written: {error.strerror}",
                where="standard output",
                fix="free space there, or redirect it elsewhere",
            ) from error


@contextmanager
def safe_streams() -> Iterator[None]:
    """Streams of the block may be closed, full or ASCII; what waits is written at its end.

    Raises:
        PreflightError: Standard output takes no more.
    """
    _fill_closed_streams()
    sys.stdout = _text_stream(1)
    try:
        yield
    finally:
        try:
            own_stdout().flush()
        except BaseException:
            _discard_output()
            raise


_own: list[TextIO] = []
"""Standard output, once strangers' words are kept out of it."""


def own_stdout() -> TextIO:
    """Where this program's own data go."""
    return _own[0] if _own else sys.stdout


def part_from_user_code() -> TextIO:
    """From now to the end of the process, what anybody else prints goes to standard error.

    Others' code is about to run in this process: environments, their C libraries and children, what
    they do at exit. All of them write to descriptor 1, or to `sys.stdout`.

    Returns:
        The stream that still leads to standard output.
    """
    if not _own:
        sys.stdout.flush()
        _own.append(_text_stream(os.dup(1)))  # which no child inherits
        os.dup2(2, 1)
        sys.stdout = _text_stream(1)
    return _own[0]


def _text_stream(descriptor: int) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(_Stdout(descriptor, "w", closefd=False)),
        encoding=sys.stdout.encoding,
        errors="backslashreplace",
        line_buffering=os.isatty(descriptor),
    )


def _fill_closed_streams() -> None:
    """Else the next file that is opened would be taken for one of them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < NUM_STREAMS:
        pass
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - as long as the process


def _discard_output() -> None:
    """What still waits for it would fail once more when the interpreter ends."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, own_stdout().fileno())
    os.close(nothing)
