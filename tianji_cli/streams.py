"""The command's standard streams, made so that no word of it can fail with a traceback.

A stream may be closed, may be unable to show a character, or may lie on a disk that is full.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

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
                fix="free space there, or send it elsewhere",
            ) from error


@contextmanager
def safe_streams() -> Iterator[None]:
    """Streams of the block may be closed, full or ASCII; what waits is written at its end.

    Raises:
        PreflightError: Standard output takes no more.
    """
    _fill_closed_streams()
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Stdout(1, "w", closefd=False)),
        encoding=sys.stdout.encoding,
        errors="backslashreplace",
        line_buffering=sys.stdout.isatty(),
    )
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except BaseException:
            _discard_output()
            raise


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
    os.dup2(nothing, 1)
    os.close(nothing)
