"""JSON files with a schema version: written whole, read strictly."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from engine.errors import ConfigError, PreflightError
from engine.files import read_regular
from tianji_cli.storage.masking import masked
from tianji_cli.storage.ownership import checksum_of, note_own
from tianji_cli.storage.run_dir import in_unicode
from tianji_cli.storage.safe_files import OPEN_MODE, PRIVATE_MODE, write_file

T = TypeVar("T")

MAX_DOCUMENT_BYTES = 1 << 26
"""A benchmark of a thousand cells, or a run of a thousand roles, has a hundredth of that."""


def encode_json(document: object) -> bytes:
    """A document as it is kept, for people to read; values of `env` are not part of it."""
    kept = masked(document)
    try:
        data = msgspec.json.encode(kept)
    except UnicodeEncodeError:  # a name of a file that is no UTF-8
        data = msgspec.json.encode(_in_unicode(msgspec.to_builtins(kept)))
    return msgspec.json.format(data) + b"\n"


def _in_unicode(tree: object) -> object:
    """The same; bytes that Python could only carry along in a text are shown as `\\xfc`."""
    if isinstance(tree, str):
        return in_unicode(tree)
    if isinstance(tree, list | tuple):
        return [_in_unicode(item) for item in tree]
    if isinstance(tree, dict):
        return {_in_unicode(key): _in_unicode(item) for key, item in tree.items()}
    return tree


def write_json(path: Path, document: object, mode: int = OPEN_MODE) -> bytes:
    """Writes a document so that it is either complete or absent; follows no link.

    Args:
        path: The file; an existing one is replaced.
        document: What it will hold, but for values of `env`.
        mode: Who may read it.

    Returns:
        What was written.
    """
    data = encode_json(document)
    write_file(path, data, mode)
    return data


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
                fix="choose another --name, or continue it with --resume",
            ) from None
        try:
            data = write_json(path, document, PRIVATE_MODE)
        except OSError:
            shutil.rmtree(root, ignore_errors=True)  # else its name would be taken by nothing
            raise
    note_own(checksum_of(data))


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
    return decode(read_document(path), kind, newest, what, str(path))


def read_document(path: Path) -> bytes:
    """The bytes of a JSON document.

    Raises:
        ConfigError: There is none, it is no regular file, or larger than any.
    """
    return read_regular(path, MAX_DOCUMENT_BYTES)


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
