"""The command's standard streams, wrapped so that output never fails with a traceback.

A stream can be closed, unable to show a character, or on a full disk.
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
    """Standard output that raises a clear error if it cannot be written."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise  # the reader is gone
        except OSError as error:
            raise PreflightError(
                f"it cannot be written: {error.strerror}",
                where="standard output",
                fix="free space there, or redirect it elsewhere",
            ) from error


@contextmanager
def safe_streams() -> Iterator[None]:
    """Allows closed, full or ASCII streams in the block; flushes them at its end.

    Raises:
        PreflightError: Standard output cannot be written.
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
"""Standard output for this program's data, once it was separated."""


def own_stdout() -> TextIO:
    """The stream for this program's own data."""
    return _own[0] if _own else sys.stdout


def is_stdout_replaced() -> bool:
    """Whether another program that runs this one in its process collects what it prints."""
    return sys.stdout is not sys.__stdout__ and not _own


def part_from_user_code() -> TextIO:
    """From now on, output of other code goes to standard error.

    Other code is about to run in this process: environments, their C libraries and children, and
    their exit handlers. They write to descriptor 1 or to `sys.stdout`.

    Returns:
        The stream that still goes to standard output.
    """
    if not _own:
        sys.stdout.flush()
        _own.append(_text_stream(os.dup(1)))  # not inherited by children
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
    """Opens missing ones, since the next opened file would take their number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < NUM_STREAMS:
        pass
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - as long as the process


def _discard_output() -> None:
    """Discards its buffer, which would fail again when the interpreter exits."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, own_stdout().fileno())
    os.close(nothing)
