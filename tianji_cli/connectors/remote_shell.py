"""Commands for a host's `sh`, given on standard input, and answers whose begin and end are marked.

What sshd starts is the user's login shell, and that may be any: tcsh, fish or a restricted one
reads quotes, line breaks and `exec` in its own way, and its start-up files may print words. So it
is only told to run `sh -s`. The script that `sh` then reads prints a mark before and after the
command, and nothing outside the marks is taken for an answer. Pure.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tianji_cli.connectors.base import with_environment

LOGIN_LINE = "sh -s"
"""All that the login shell has to understand."""


@dataclass(frozen=True)
class ShellAnswer:
    """What a command has said, without what the login shell said around it.

    Attributes:
        code: Its exit code; None if it did not come to its end.
    """

    code: int | None
    stdout: bytes
    stderr: bytes


def new_mark() -> str:
    """The mark that separates one command's answer from any other output."""
    return f"tianji-{secrets.token_hex(8)}"


def spawn_line(command: Sequence[str], env: Mapping[str, str], directory: str | None) -> str:
    """What `sh` is given to become a command: every word of it quoted."""
    words = [f"cd -- {shlex.quote(directory)} &&"] if directory else []
    return " ".join([*words, "exec", shlex.join(with_environment(command, env))])


def run_script(line: str, mark: str, *, reads_input: bool = False) -> bytes:
    """Runs a line to its end.

    One group in braces: `sh` has read all of it before the first mark is printed, so what is sent
    after that is the command's.

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
    """Lets `sh` become the command of a line, which keeps its standard streams."""
    say = f"printf '%s\\n' {mark}"
    return f"{{ {say}; {say} >&2; {line}\n}}\n".encode("utf-8", "surrogateescape")


def begins(said: bytes, mark: str) -> int | None:
    """Where the answer begins in what came; None if it has not begun.

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
