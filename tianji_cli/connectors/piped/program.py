"""The keeper as text, and what starts it: an interpreter, or a shell that looks for one."""

from __future__ import annotations

import importlib.resources
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

_PACKAGE = "tianji_cli.connectors.keeper"
_MODULES = ("frames", "files", "commands", "serve")
_USUAL = ("python3", *(f"python3.{minor}" for minor in range(20, 7, -1)), "/usr/bin/python3")
_IS_NEW_ENOUGH = "import sys; print(sys.version_info >= (3, 8))"
NAME = "tianji-keeper"
"""Its last argument, for whoever looks at the processes of a host."""
READY = b"ready"
NO_PYTHON = b"none"


@dataclass(frozen=True)
class KeeperProgram:
    """What is run on a host.

    It says a line with `mark` and `ready` when it takes its source; whatever was said before is
    not its own, but for example a login shell's. With `none` there is no interpreter.

    Attributes:
        mark: Random.
        source: To be sent when it is ready.
    """

    mark: str
    source: bytes

    def words(self, python: str) -> list[str]:
        """The command line where the interpreter is known."""
        return [python, "-I", "-S", "-c", self._loader(), NAME]

    def script(self, pythons: Sequence[str]) -> str:
        """A script for `sh` that becomes a keeper, with the first interpreter that is new enough.

        Args:
            pythons: Tried before the usual ones; `~/` is the user's home there.
        """
        names = " ".join(_shell_word(name) for name in (*pythons, *_USUAL))
        asked = f'"$python" -I -S -c {shlex.quote(_IS_NEW_ENOUGH)} </dev/null 2>/dev/null'
        return (
            f"for python in {names}; do\n"
            f'  if [ "$({asked})" = True ]; then\n'
            f'    exec "$python" -I -S -c {shlex.quote(self._loader())} {NAME}\n'
            "  fi\n"
            "done\n"
            f"printf '\\n%s {NO_PYTHON.decode()}\\n' {self.mark}; exit 127"
        )

    def _loader(self) -> str:
        """Reads the source and runs it. No more is sent before that has begun."""
        say = f"import os;os.write(1,b'\\n{self.mark} {READY.decode()}\\n')"
        return f"{say};exec(open(0,'rb',closefd=False).read({len(self.source)}))"


def keeper_program(lease_s: float | None) -> KeeperProgram:
    """A keeper with a mark of its own.

    Args:
        lease_s: After this long without a word from here it gives up; None if it always notices
            the end of its input.
    """
    folder = importlib.resources.files(_PACKAGE)
    modules = [(f"{_PACKAGE}.{name}", (folder / f"{name}.py").read_text()) for name in _MODULES]
    source = (
        "import sys, types\n"
        f"for name, text in {modules!r}:\n"
        "    module = sys.modules[name] = types.ModuleType(name)\n"
        "    exec(compile(text, name, 'exec'), module.__dict__)\n"
        f"module.serve({lease_s!r})\n"
    )
    return KeeperProgram(f"tianji-{secrets.token_hex(8)}", source.encode())


def _shell_word(path: str) -> str:
    if path == "~" or path.startswith("~/"):
        return f'"$HOME"{shlex.quote(path[1:])}'
    return shlex.quote(path)
