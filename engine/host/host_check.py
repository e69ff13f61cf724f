"""Checks that files on a host are still as they were put there, with any Python from 3.7 on.

It is sent as text, like `host_probe.py`; the files under test are not imported.

    bundle DIR SHA256             one JSON document: is the bundle in DIR as its list of files says
    environment NAME==VERSION...  one JSON document: has this interpreter what it was made with

Both report the first problem, or an empty text. A full disk or a power loss leaves truncated files;
a process that maps such a library dies of a bus error, in every run.
A damaged bundle is marked as such at once, so that another can replace it: a later check of the
replaced bundle finds no damage.
"""

from __future__ import annotations

import sys

if "" in sys.path:  # a `token.py` in the home directory is not what the imports below mean
    sys.path.remove("")

import hashlib
import json
import marshal
import os
import re

LIST_NAME = ".sha256"
"""In a bundle: a line `<SHA-256>  <relative path>` for each of its other files."""
DAMAGED_NAME = ".damaged"
"""In a bundle or environment: it is damaged, and another can replace it."""
LIBRARY = re.compile(r'^([^",\n]*\.so(?:\.[^",\n]*)?),[^,\n]*,([0-9]*)\r?$', re.MULTILINE)
"""Lines of a package's `RECORD`: path, checksum, bytes; a path with a comma in it has quotes."""
_BYTECODE_HEADER_BYTES = 16


def bundle_damage(directory: str, list_sha256: str) -> str:
    """What is wrong with a bundle; files that its list does not name are ignored."""
    try:
        with open(os.path.join(directory, LIST_NAME), "rb") as file:
            listed = file.read()
        if hashlib.sha256(listed).hexdigest() != list_sha256:
            return "its list of files does not have its checksum"
        lines = [line.partition("  ") for line in listed.decode().splitlines()]
        for sha256, _, path in lines:
            with open(os.path.join(directory, path), "rb") as file:
                if hashlib.sha256(file.read()).hexdigest() != sha256:
                    return path + " does not have its checksum"
    except OSError as error:
        return f"{os.path.relpath(str(error.filename), directory)}: {error.strerror}"
    for folder in sorted({os.path.dirname(path) for _, _, path in lines}):
        bad = bad_bytecode(os.path.join(directory, folder, "__pycache__"))
        if bad:
            return os.path.relpath(bad, directory) + " is cut short"
    return ""


def bad_bytecode(cache: str) -> str:
    """A file of this interpreter's bytecode that would end the import of its module.

    Python replaces one without a valid header on import, so that does no harm.
    """
    ending = "." + str(sys.implementation.cache_tag) + ".pyc"
    for name in sorted(os.listdir(cache)) if os.path.isdir(cache) else ():
        if not name.endswith(ending):
            continue
        path = os.path.join(cache, name)
        with open(path, "rb") as file:
            data = file.read()
        if len(data) < _BYTECODE_HEADER_BYTES:
            continue
        try:
            marshal.loads(data[_BYTECODE_HEADER_BYTES:])
        except (EOFError, TypeError, ValueError):
            return path
    return ""


def environment_damage(pinned: list[str]) -> str:
    """What is wrong with the environment of this interpreter.

    Args:
        pinned: `NAME==VERSION` of its packages; it can have more.
    """
    from importlib import metadata

    for requirement in pinned:
        name, _, wanted = requirement.partition("==")
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            return name + " is missing"
        if version.partition("+")[0] != wanted:
            return f"{name} is {version}, not {wanted}"
    for distribution in metadata.distributions():
        listed = distribution.read_text("RECORD") or ""
        for path, num_bytes in LIBRARY.findall(listed):
            wrong = library_damage(str(distribution.locate_file(path)), num_bytes)
            if wrong:
                return wrong
    return ""


def library_damage(path: str, num_bytes: str) -> str:
    """What is wrong with a shared library of a package.

    Of tens of thousands of files, only these few hundred can silently kill a process; the others
    raise an error when they are imported.
    """
    name = os.path.basename(path)
    try:
        found = os.stat(path).st_size
    except OSError:
        return name + " is missing"
    if num_bytes and found != int(num_bytes):
        return f"{name} has {found} of {num_bytes} bytes"
    return ""


def main(arguments: list[str]) -> None:
    """Runs one verb."""
    verb, rest = arguments[0], arguments[1:]
    if verb == "bundle":
        is_there = os.path.isdir(rest[0])
        damage = bundle_damage(rest[0], rest[1]) if is_there else ""
        if damage:
            open(os.path.join(rest[0], DAMAGED_NAME), "w").close()
        print(json.dumps({"is_there": is_there, "damage": damage}))
    elif verb == "environment":
        print(json.dumps({"is_there": True, "damage": environment_damage(rest)}))


if __name__ == "__main__":
    main(sys.argv[1:])
