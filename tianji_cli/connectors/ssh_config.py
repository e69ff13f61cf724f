"""The user's ssh configuration of a host, from the user's own OpenSSH client (`ssh -G`).

`ssh -G` reads every file, follows Include, evaluates Match (and runs `Match exec`) and prints the
result. It is run once per host and route. Without a client, paramiko's parser is used, and a file
with lines that it would misread is refused (`ssh_parser`).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError, DeadlineError
from engine.host.account import database_entry, home
from tianji_cli.connectors.ssh_tokens import Options, SshConfigError

ASK_S = 20.0
"""Time-out: `Match exec` and canonical names can ask the network."""
SYSTEM_CONFIG = "/etc/ssh/ssh_config"
_REPEATED = frozenset({"identityfile", "certificatefile"})
"""Options with one value per line."""
_AT_LINE = re.compile(r"^(?P<file>.+?):? line (?P<line>\d+): (?P<what>.+)$")


@dataclass(frozen=True)
class Question:
    """A host as named on the command line of `ssh`, with options.

    Attributes:
        alias: The user's name for it.
        jump: As for `-J`; `none` for no jump, even if the configuration has one.
    """

    alias: str
    user: str | None = None
    port: int | None = None
    key: str | None = None
    jump: str | None = None

    @property
    def words(self) -> list[str]:
        """Its command-line arguments."""
        words = [] if self.user is None else ["-l", self.user]
        words += [] if self.port is None else ["-p", str(self.port)]
        words += [] if self.key is None else ["-i", self.key]
        if self.jump is not None:
            is_none = self.jump.lower() == "none"
            words += ["-o", "ProxyJump=none"] if is_none else ["-J", self.jump]
        return [*words, "--", self.alias]


class UserConfig:
    """The user's ssh configuration: one file and its includes.

    Args:
        path: The file; None for the user's own, as `ssh` finds it.
        program: The client; None if there is none.
    """

    def __init__(self, path: Path | None, program: str | None) -> None:
        self._path = path
        self._program = program
        self._answers: dict[Question, Options] = {}
        self._lock = threading.Lock()

    def lookup(
        self,
        alias: str,
        user: str | None = None,
        port: int | None = None,
        key: str | None = None,
        jump: str | None = None,
    ) -> Options:
        """All options of a host.

        Raises:
            ConfigError: The configuration cannot be used; file and line are named.
            DeadlineError: The client does not answer.
        """
        question = Question(alias, user, port, key, jump)
        with self._lock:  # `Match exec` runs programs: once, not once per thread
            if question not in self._answers:
                self._answers[question] = self._ask(question)
            return self._answers[question]

    def _ask(self, question: Question) -> Options:
        if self._path is not None and not self._path.exists():
            return {"hostname": question.alias}
        if self._program is None:
            return self._parse(question)
        chosen, moved = self._file_option()
        try:
            done = _run([self._program, "-G", "-T", *chosen, *question.words], question.alias)
        except OSError as error:
            raise ConfigError(f"cannot be started: {error}", where=self._program) from error
        errors = done.stderr.decode("utf-8", "replace")
        if done.returncode == 0:
            answer = read_answer(done.stdout.decode("utf-8", "surrogateescape"))
            return _with_home(answer, *moved) if moved else answer
        if "option -- G" in errors or "No user exists" in errors:
            return self._parse(question)  # a client of 2014, or a user without a name
        raise refusal(errors, question.alias)

    def _parse(self, question: Question) -> Options:
        from tianji_cli.connectors.ssh_parser import parse_config

        path = self._path or Path(home() or "/nonexistent") / ".ssh/config"
        return parse_config(path, question.alias, question.user)

    def _file_option(self) -> tuple[list[str], tuple[str, str] | None]:
        """Which file is to be read, if not the usual ones; and from where to where `~` moves.

        ssh goes by the password database alone. All else that a user runs goes by `$HOME`, so who
        sets that to another place has its configuration there.
        """
        if self._path is not None:
            return ["-F", str(self._path)], None
        entry, base = database_entry(), home()
        if entry is None or base is None or _is_same(entry.pw_dir, str(base)):
            return [], None
        own = base / ".ssh" / "config"
        file = next((str(p) for p in (own, Path(SYSTEM_CONFIG)) if p.is_file()), "none")
        return ["-F", file], (entry.pw_dir, str(base))


_CONFIGS: dict[tuple[object, ...], UserConfig] = {}


def read_user_config(path: Path | None = None) -> UserConfig:
    """The user's own ssh configuration, with cached answers.

    Args:
        path: A file to read instead of it.
    """
    program = shutil.which("ssh")
    file = path or Path(home() or "/nonexistent") / ".ssh/config"
    try:
        facts = file.stat()
        version = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
    except OSError:
        version = (0, 0, 0)
    key = (path, program, str(home()), os.environ.get("SSH_AUTH_SOCK"), version)
    return _CONFIGS.setdefault(key, UserConfig(path, program))


def read_answer(text: str) -> dict[str, str | list[str]]:
    """Parses the output of `ssh -G`: one option per line, its name in lower case.

    >>> read_answer("user ann\\nidentityfile ~/.ssh/a\\nidentityfile /b c\\n")
    {'user': 'ann', 'identityfile': ['~/.ssh/a', '/b c']}
    """
    options: dict[str, str | list[str]] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        name = name.lower()
        if name in _REPEATED:
            known = options.setdefault(name, [])
            assert isinstance(known, list)
            known.append(value)
        else:
            options.setdefault(name, value)
    return options


def refusal(errors: str, alias: str) -> SshConfigError:
    """The error of the client, with file and line."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    fix = f"ssh -G {alias} must work"
    for line in lines:
        if match := _AT_LINE.match(line):
            what = match["what"]
            if "\\357\\273\\277" in what:  # the file's first bytes, as ssh prints them
                fix = "save the file without a byte order mark"
            return SshConfigError(
                f"ssh cannot use it: {what}", where=f"{match['file']}:{match['line']}", fix=fix
            )
        if match := re.match(r"Bad owner or permissions on (.+)$", line):
            path = match[1]
            fix = f"you must own it, and only you may write it: chmod go-w {path}"
            return SshConfigError("ssh refuses its owner or permissions", where=path, fix=fix)
    said = "; ".join(lines[-3:]) or "it said nothing"
    return SshConfigError(f"ssh cannot resolve it: {said}", where=alias, fix=fix)


def _is_same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _with_home(answer: dict[str, str | list[str]], here: str, there: str) -> Options:
    """Maps files from one home directory to another."""
    name = "userknownhostsfile"
    value = answer.get(name)
    if isinstance(value, str):
        words = value.split(" ")
        start = f"{here.rstrip('/')}/.ssh/"
        moved = [
            f"{there}/.ssh/{w.removeprefix(start)}" if w.startswith(start) else w for w in words
        ]
        answer[name] = " ".join(moved)
    return answer


def _run(command: list[str], alias: str) -> subprocess.CompletedProcess[bytes]:
    """Runs the client detached from the terminal, with a time-out for it and its children."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=ASK_S)
    except subprocess.TimeoutExpired:
        raise DeadlineError(
            f"`ssh -G` did not answer within {ASK_S:.0f} s; it runs the `Match exec` lines of your"
            " configuration and may look names up",
            where=alias,
            fix=f"time ssh -G {alias}",
        ) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)
