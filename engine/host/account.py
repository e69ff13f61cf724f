"""The user who runs this, and the directories of that user's files, even without an account name.

Containers are often started with a bare user number (`docker run --user 1234`) that is not in the
password database, with HOME unset or pointing nowhere.
"""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from pathlib import Path


def user_name() -> str:
    """The user's login name; empty if there is none.

    As `getpass.getuser` finds it: the environment first.
    """
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        if name := os.environ.get(variable):
            return name
    entry = database_entry()
    return entry.pw_name if entry else ""


def user_label() -> str:
    """A label for the user: the name, or else `uid 1234`."""
    return user_name() or f"uid {os.getuid()}"


def home() -> Path | None:
    """The user's home directory: `$HOME`, or else that of the password database; None without
    either."""
    entry = database_entry()
    text = os.environ.get("HOME") or (entry.pw_dir if entry else "")
    return Path(text) if text else None


def expand(path: str | Path) -> Path:
    """The path with `~` and `~name` expanded; unchanged if there is no such home."""
    text = str(path)
    if text == "~" or text.startswith("~/"):
        base = home()
        return Path(text) if base is None else base / text[2:]
    try:
        return Path(text).expanduser()
    except RuntimeError:  # `~name` of an unknown user
        return Path(text)


def cache_home() -> Path:
    """The user's cache directory: `$XDG_CACHE_HOME`, `~/.cache`, or, without a writable home, the
    user's own directory below the temporary one."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given)
    base = home()
    if base is not None:
        cache = base / ".cache"
        if os.access(cache if cache.is_dir() else base, os.W_OK | os.X_OK):
            return cache
    return _own_directory(Path(tempfile.gettempdir()) / f"tianji-cache-{os.getuid()}")


def cache_directory() -> Path:
    """TianJi's own cache: `tianji` in that."""
    return cache_home() / "tianji"


def _own_directory(path: Path) -> Path:
    """A directory that no other user can write, since its contents are loaded and executed: this
    one, or a fresh one if another user created it first."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if is_own and not found.st_mode & 0o022:
        return path
    return Path(tempfile.mkdtemp(prefix=f"{path.name}-"))


def database_entry() -> pwd.struct_passwd | None:
    """The user's entry in the password database, the only one that `ssh` uses."""
    try:
        return pwd.getpwuid(os.getuid())
    except KeyError:
        return None
