"""Commands for a host's `sh`, given on standard input, and answers with marked start and end.

sshd starts the user's login shell, which can be any shell: tcsh, fish or a restricted one parses
quotes, line breaks and `exec` in its own way, and its start-up files can print text. So it is only
asked to run `sh -s`. The script that `sh` then reads prints a mark before and after the command,
and output outside the marks is ignored. Pure.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tianji_cli.connectors.base import with_environment

LOGIN_LINE = "sh -s"
"""The only line that the login shell must parse."""


@dataclass(frozen=True)
class ShellAnswer:
    """The output of a command, without that of the login shell.

    Attributes:
        code: Its exit code; None if it did not end.
    """

    code: int | None
    stdout: bytes
    stderr: bytes


def new_mark() -> str:
    """The mark that separates one command's answer from any other output."""
    return f"tianji-{secrets.token_hex(8)}"


def spawn_line(command: Sequence[str], env: Mapping[str, str], directory: str | None) -> str:
    """The shell line for a command, with every word quoted."""
    words = [f"cd -- {shlex.quote(directory)} &&"] if directory else []
    return " ".join([*words, "exec", shlex.join(with_environment(command, env))])


def run_script(line: str, mark: str, *, reads_input: bool = False) -> bytes:
    """The script that runs a line to its end.

    It is one group in braces: `sh` has read all of it before it prints the first mark, so later
    input is for the command.

    Args:
        reads_input: Whether standard input is the command's; otherwise it has none.
    """
    source = "" if reads_input else " </dev/null"
    say = f"printf '%s\\n' {mark}"
    end = f"code=$?; printf '\\n%s %s\\n' {mark} $code; printf '\\n%s\\n' {mark} >&2; exit $code"
    return f"{{ {say}; {say} >&2; ({line}\n){source}; {end}; }}\n".encode(
        "utf-8", "surrogateescape"
    )


def become_script(line: str, mark: str) -> bytes:
    """The script that replaces `sh` by the command of a line, which keeps the standard streams."""
    say = f"printf '%s\\n' {mark}"
    return f"{{ {say}; {say} >&2; {line}\n}}\n".encode("utf-8", "surrogateescape")


def begins(said: bytes, mark: str) -> int | None:
    """Offset of the answer in the output; None if it has not started.

    >>> begins(b"Welcome!\\nm1\\nanswer", "m1")
    12
    """
    line = f"{mark}\n".encode()
    at = said.find(line)
    return None if at < 0 else at + len(line)


def read_answer(stdout: bytes, stderr: bytes, mark: str) -> ShellAnswer | None:
    """The answer to `run_script`; None if the script was never run."""
    begin = begins(stdout, mark)
    if begin is None:
        return None
    errors = stderr[begins(stderr, mark) or 0 :].partition(f"\n{mark}\n".encode())[0]
    body, found, rest = stdout[begin:].rpartition(f"\n{mark} ".encode())
    if not found:
        return ShellAnswer(None, stdout[begin:], errors)
    word = rest.split(None, 1)[:1]
    code = int(word[0]) if word and word[0].isdigit() else None
    return ShellAnswer(code, body, errors)
