"""Users without a name or a home, as containers with a bare number have."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from engine.errors import ConfigError
from engine.host import account
from tests.helpers.paths import REPOSITORY
from tianji_cli.config.inventory import Host
from tianji_cli.connectors.local import LocalNode
from tianji_cli.connectors.target import resolve_target

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME", "XDG_CACHE_HOME")


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user of whom neither the environment nor the password database says anything."""

    def unknown(_uid: int) -> NoReturn:
        raise KeyError("no such user")

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(account.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_what_is_asked_of_such_a_user(nobody: Path) -> None:
    assert account.user_name() == ""
    assert account.user_label() == f"uid {os.getuid()}"
    assert account.home() is None
    assert str(account.expand("~/x")) == "~/x"
    assert str(account.expand("~nobody-of-that-name/x")) == "~nobody-of-that-name/x"
    assert LocalNode("a").access.user == f"uid {os.getuid()}"
    assert LocalNode("a").expand("/w") == "/w"
    assert LocalNode("a").expand("~/.tianji") == f"{nobody}/tianji-{os.getuid()}/.tianji"


def test_caches_lie_where_only_this_user_writes(nobody: Path) -> None:
    """What lies there is loaded and run, so nobody else's directory of that name will do."""
    found = account.cache_directory().parent
    assert found.parent == nobody
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert account.cache_directory().parent == found
    found.chmod(0o777)
    other = account.cache_directory().parent
    assert other != found
    assert stat.S_IMODE(other.stat().st_mode) == 0o700


def test_a_home_that_cannot_be_written_is_no_place_for_caches(
    nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(nobody / "gone"))
    assert account.cache_directory().parent.parent == nobody
    (nobody / "gone").mkdir()
    assert account.cache_directory() == nobody / "gone" / ".cache" / "tianji"


def test_a_login_without_any_name_asks_for_one(nobody: Path) -> None:
    host = Host(name="h", connection="ssh", ssh_host="box", address="", ports=None)
    with pytest.raises(ConfigError, match="no user to log in as") as caught:
        resolve_target(host, lambda alias, **_: {"hostname": alias})
    assert "`user:`" in caught.value.fix


BARE = [
    *("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
]
"""Becomes a user of that number, who may read what is root's: the interpreter may lie there."""


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can become a user of any number, with setpriv",
)
@pytest.mark.parametrize("words", [("up", "--policy", "local"), ("up",)])
def test_a_user_of_a_bare_number_can_run(words: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(prefix="tj-") as name:  # short, as sockets will lie in it
        run_bare(Path(name), words)


def run_bare(tmp_path: Path, words: tuple[str, ...]) -> None:
    tmp_path.chmod(0o777)
    env = {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    short = ("-s", "stop.env_steps=2000", "-s", "stop.return_threshold=null", "-s", "actors=1")
    command = [*BARE, sys.executable, "-m", "tianji_cli.main", *words, *short]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
