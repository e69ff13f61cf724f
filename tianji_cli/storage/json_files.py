"""JSON files with a schema version: written atomically, read strictly."""

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
"""A benchmark of a thousand cells, or a run of a thousand roles, needs a hundredth of this."""


def encode_json(document: object) -> bytes:
    """A document as stored, indented, without values of `env`."""
    kept = masked(document)
    try:
        data = msgspec.json.encode(kept)
    except UnicodeEncodeError:  # a file name that is not UTF-8
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
        document: Its contents, without values of `env`.
        mode: File mode.

    Returns:
        The written text.
    """
    data = encode_json(document)
    write_file(path, data, mode)
    return data


@contextmanager
def writing(what: str, root: Path, fix: str = "") -> Iterator[None]:
    """Turns disk errors into one clear error.

    Raises:
        PreflightError: A file below `root` cannot be written in the block.
    """
    try:
        yield
    except OSError as error:
        problem = f"{what} cannot be written: {error.strerror or error}"
        raise PreflightError(problem, where=str(root), fix=fix) from error


def create_result_dir(path: Path, document: object) -> None:
    """Creates the directory of a benchmark or study and writes its document.

    Args:
        path: Of the document; its directory must not exist.
        document: Its contents.

    Raises:
        ConfigError: One of that name exists.
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
            shutil.rmtree(root, ignore_errors=True)  # else an empty directory would block its name
            raise
    note_own(checksum_of(data))


def read_json(path: Path, kind: type[T], newest: int, what: str) -> T:
    """Reads a document of one type.

    Args:
        path: The file.
        kind: Its type; has a `schema_version`.
        newest: The highest schema version that this program knows.
        what: What the file should be of, for errors: `a benchmark`.

    Raises:
        ConfigError: There is none, it is damaged, or newer than this program.
    """
    return decode(read_document(path), kind, newest, what, str(path))


def read_document(path: Path) -> bytes:
    """The bytes of a JSON document.

    Raises:
        ConfigError: There is none, it is not a regular file, or too large.
    """
    return read_regular(path, MAX_DOCUMENT_BYTES)


def decode(data: bytes, kind: type[T], newest: int, what: str, where: str) -> T:
    """Parses a document; arguments and errors as of `read_json`."""
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
