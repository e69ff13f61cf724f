"""Hosts whose login shell is tcsh, fish or a restricted one, or prints words: real sshd, no lab."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import DeadlineError, PreflightError
from tests.helpers.sshd_kit import (
    SFTP_SERVER,
    Sshd,
    missing,
    no_configuration,
    serving,
    show_words,
    words_of,
)
from tianji_cli.connectors.ssh import SshNode
from tianji_cli.provisioning.preflight import measure_clock
from tianji_cli.provisioning.probe import probe

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
__all__ = ["no_configuration"]

BANNER = 'echo "Welcome to the cluster"\necho "{\\"port\\": 1}"\necho careful >&2\n'
SHELLS = {
    "plain": "bash",
    "welcome": "bash",
    "chatty_end": "bash",
    "dash": "dash",
    "tcsh": "tcsh",
    "tcsh_welcome": "tcsh",
    "rbash": "rbash",
    "rbash_welcome": "rbash",
    "fish": "fish",
    "zsh": "zsh",
    "ksh": "mksh",
}
START_UP = {
    "welcome/.bashrc": BANNER,
    "chatty_end/.bashrc": "trap 'echo goodbye; echo bye >&2; exit 3' EXIT\n",
    "tcsh_welcome/.cshrc": "echo Welcome\nset prompt='x'\n",
    "rbash_welcome/.bashrc": BANNER,
}
HOSTILE = ["", "it's", 'a "b"', "$(date)", "a\nb", "!!", "\\", "é 日本", "*?[a]", "~", "-rf"]


THROUGH_THE_SHELL = ("plain", "welcome", "chatty_end", "tcsh_welcome", "rbash", "fish")
"""Users that are also tried where SFTP is a program that their login shell starts."""
WAYS = [
    *(("internal-sftp", user) for user in SHELLS),
    *((SFTP_SERVER, user) for user in THROUGH_THE_SHELL),
]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Sshd]]:
    """With sshd's own SFTP, and with the program that a login shell starts."""
    paths = {user: shutil.which(shell) for user, shell in SHELLS.items()}
    shells = {user: path for user, path in paths.items() if path is not None}
    shells["nologin"] = shutil.which("nologin") or "/bin/false"
    start_up = {name: text for name, text in START_UP.items() if name.split("/")[0] in shells}
    with contextlib.ExitStack() as stack:
        yield {
            sftp: stack.enter_context(
                serving(tmp_path_factory.mktemp("sshd") / "d", shells, start_up=start_up, sftp=sftp)
            )
            for sftp in ("internal-sftp", SFTP_SERVER)
        }


@pytest.fixture(params=WAYS, ids=[f"{user}-{Path(sftp).name}" for sftp, user in WAYS])
def node(request: pytest.FixtureRequest, servers: dict[str, Sshd]) -> Iterator[SshNode]:
    sftp, user = request.param
    if shutil.which(SHELLS[user]) is None:
        pytest.skip(f"there is no {SHELLS[user]} here")
    found = SshNode(servers[sftp].host(user))
    yield found
    found.close()


def test_a_program_of_several_lines_gets_its_words_as_they_are(node: SshNode) -> None:
    done = node.run([sys.executable, "-c", show_words(), *HOSTILE], 30)
    assert done.code == 0, done.stderr
    assert words_of(done.stdout) == HOSTILE


def test_codes_and_both_streams_are_the_commands_own(node: SshNode) -> None:
    done = node.run(["sh", "-c", "echo out; echo err >&2; exit 7"], 30)
    assert (done.code, done.stdout.strip(), done.stderr.strip()) == (7, "out", "err")
    assert node.run(["/no/such/program"], 30).code == 127
    assert node.run(["cat"], 30).stdout == "", "there is no input"
    with pytest.raises(DeadlineError, match="took longer"):
        node.run(["sleep", "60"], 0.5)


def test_files_go_there_and_back(node: SshNode, tmp_path: Path) -> None:
    root = tmp_path / "it's a $(date) dir"
    data = os.urandom(300_000) + b"\r\n\0end"
    (root / "sub").mkdir(parents=True)
    path = str(root / "sub" / "file")
    assert not node.exists(path)
    assert node.read(path) == b""
    node.put(path, data)
    node.put(f"{root}/empty", b"")
    assert node.exists(path)
    assert node.read(path) == data
    assert node.read(path, 299_990) == data[299_990:]
    assert node.read(path, len(data)) == b""
    assert node.walk(str(root)) == {"sub/file": len(data), "empty": 0}
    assert node.walk(str(root / "none")) == {}
    with pytest.raises(PreflightError):
        node.put(str(root / "none" / "file"), b"x")
    assert node.expand("~").endswith("/homes/" + node.access.user)


def test_a_started_program_has_clean_streams(node: SshNode, tmp_path: Path) -> None:
    """What is written as soon as it runs is the program's, not the shell's that reads a script."""
    code = (
        "import os, sys\nprint(os.environ['A'], os.getcwd(), flush=True)\nprint(sys.stdin.read())"
    )
    code += "\nprint('said', file=sys.stderr)"
    connection = node.spawn([sys.executable, "-c", code], {"A": "it's !!"}, str(tmp_path))
    os.write(connection.to_supervisor, b"echo PWNED\n" * 1000)
    connection.close_input()
    said = b""
    while data := os.read(connection.from_supervisor, 65536):
        said += data
    assert said.decode().startswith(f"it's !! {tmp_path}\necho PWNED\n")
    assert said.count(b"echo PWNED") == 1000
    assert connection.wait(60)
    assert connection.error_output() in ("said", "said\nbye")


def test_everything_that_parses_an_answer_gets_one(node: SshNode, tmp_path: Path) -> None:
    facts = probe(node, sys.executable, str(tmp_path), ["msgspec"])
    assert facts is not None
    assert facts.missing == []
    assert abs(measure_clock(node, sys.executable).offset_ns) < 1e9


@pytest.mark.parametrize("sftp", ["internal-sftp", SFTP_SERVER])
def test_an_account_without_a_shell_is_named(servers: dict[str, Sshd], sftp: str) -> None:
    """sshd's own SFTP needs none, so it may only be noticed by the first command."""

    def use() -> None:
        with contextlib.closing(SshNode(servers[sftp].host("nologin"))) as node:
            node.run(["true"], 10)

    with pytest.raises(PreflightError, match="login shell there does not run"):
        use()


@pytest.mark.parametrize("limit", [1, 2])
def test_few_sessions_are_enough(tmp_path: Path, limit: int) -> None:
    """More connections are made where one does not carry all sessions."""
    with serving(tmp_path / "d", {"plain": "/bin/bash"}, settings=[f"MaxSessions {limit}"]) as sshd:
        node = SshNode(sshd.host())
        started = [node.spawn(["cat"], {}) for _ in range(3)]
        for number in range(6):
            assert node.run(["echo", str(number)], 30).stdout.strip() == str(number)
        node.put(str(tmp_path / "f"), b"x")
        assert node.read(str(tmp_path / "f")) == b"x"
        for connection in started:
            os.write(connection.to_supervisor, b"word")
            assert os.read(connection.from_supervisor, 4) == b"word"
        node.close()


def test_a_host_without_sessions_names_the_setting(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "d", {"plain": "/bin/bash"}, settings=["MaxSessions 0"]) as sshd,
        contextlib.closing(SshNode(sshd.host())) as node,
        pytest.raises(PreflightError, match="refuses a session") as caught,
    ):
        node.run(["true"], 10)
    assert "MaxSessions" in caught.value.fix


def test_hosts_without_sftp_are_of_use(tmp_path: Path) -> None:
    with serving(tmp_path / "d", {"plain": "/bin/bash"}, sftp="/no/such/server") as sshd:
        node = SshNode(sshd.host())
        node.put(str(tmp_path / "f"), b"x")
        assert node.read(str(tmp_path / "f")) == b"x"
        node.close()
