"""JSON files with a schema version: written whole, read strictly."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from engine.errors import ConfigError, PreflightError

T = TypeVar("T")


def write_json(path: Path, document: object) -> None:
    """Writes a document so that it is either complete or absent."""
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    os.replace(part, path)


@contextmanager
def writing(what: str, root: Path, fix: str = "") -> Iterator[None]:
    """Makes a disk that refuses one error that says so.

    Raises:
        PreflightError: What is to be written below `root` meanwhile cannot be.
    """
    try:
        yield
    except OSError as error:
        problem = f"{what} cannot be written: {error.strerror or error}"
        raise PreflightError(problem, where=str(root), fix=fix) from error


def begin(path: Path, document: object) -> None:
    """Makes the directory of a piece of work and writes the document that says what it is.

    Args:
        path: Of the document; its directory must not exist.
        document: Of the work.

    Raises:
        ConfigError: Work of that name exists.
        PreflightError: It cannot be written.
    """
    root = path.parent
    with writing("results", root):
        try:
            root.mkdir(parents=True)
        except FileExistsError:
            raise ConfigError(
                "a benchmark or study of this id exists and is not overwritten",
                where=str(root),
                fix="choose another --name, or go on with it: --resume",
            ) from None
        try:
            write_json(path, document)
        except OSError:
            shutil.rmtree(root, ignore_errors=True)  # else its name would be taken by nothing
            raise


def read_json(path: Path, kind: type[T], newest: int, what: str) -> T:
    """Reads a document of one type.

    Args:
        path: The file.
        kind: Its type; has a `schema_version`.
        newest: The highest schema version that this program knows.
        what: Whose file it should be, for errors: `a benchmark`.

    Raises:
        ConfigError: There is none, it is damaged, or newer than this program.
    """
    try:
        return decode(path.read_bytes(), kind, newest, what, str(path))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error


def decode(data: bytes, kind: type[T], newest: int, what: str, where: str) -> T:
    """One document from its bytes; arguments and errors as of `read_json`."""
    try:
        version = msgspec.json.decode(data, type=dict[str, object]).get("schema_version")
        if isinstance(version, int) and version > newest:
            raise ConfigError(
                f"its schema_version {version} is newer than {newest}",
                where=where,
                fix="read it with the version of TianJi that wrote it",
            )
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"not a file of {what}: {error}", where=where) from error
