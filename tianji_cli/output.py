"""The output of a command: data to standard output, everything else to standard error."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Literal

from rich.console import RenderableType
from rich.text import Text

from engine.errors import TianJiError
from tianji_cli.plain_text import PlainConsole, plain_json
from tianji_cli.storage.json_files import encode_json
from tianji_cli.streams import own_stdout, part_from_user_code


class Output:
    """Consoles and verbosity of one command.

    Args:
        is_json: One JSON document on standard output, and nothing else there.
        no_color: Plain text even on a terminal.
        verbosity: -1 errors only, 0 normal, 1 more.
    """

    def __init__(
        self, *, is_json: bool = False, no_color: bool = False, verbosity: int = 0
    ) -> None:
        self.is_json = is_json
        self.verbosity = verbosity
        plain = no_color or bool(os.environ.get("NO_COLOR"))
        colours: Literal["auto"] | None = None if plain else "auto"  # None: no bold or dim either
        self.data, self.notes = (
            PlainConsole(
                stderr=is_note, color_system=colours, highlight=False, markup=False, emoji=False
            )
            for is_note in (False, True)
        )

    @property
    def is_animated(self) -> bool:
        """Whether a live display may redraw the terminal."""
        is_dumb = os.environ.get("TERM", "") in ("dumb", "")
        return self.notes.is_terminal and not is_dumb and self.verbosity >= 0 and not self.is_json

    def part_from_user_code(self) -> None:
        """Keeps output of environments in this process out of the data."""
        self.data.file = part_from_user_code()

    def say(self, text: str, *, at_verbosity: int = 0) -> None:
        """A line for the user, on standard error."""
        if self.verbosity >= at_verbosity:
            self.notes.print(text, markup=False, soft_wrap=True)

    def document(self, document: object) -> None:
        """The one JSON document of `--json`, always in UTF-8."""
        stream = own_stdout()
        stream.flush()
        stream.buffer.write(plain_json(encode_json(document)))

    def findings(
        self, document: object, tables: Iterable[RenderableType], notes: Iterable[str], place: str
    ) -> None:
        """Results: tables and lines, warnings, and where to find more; or the one document."""
        if self.is_json:
            self.document(document)
            return
        for table in tables:
            self.data.print(table, soft_wrap=isinstance(table, Text))
        for note in notes:
            self.say(f"note: {note}")
        self.data.print(Text(place), soft_wrap=True)

    def error(self, error: TianJiError) -> None:
        """Prints an error: what failed, where, why, and the next command."""
        self.notes.print("error: ", style="bold red", end="")
        self.notes.print(error.what, markup=False, soft_wrap=True)
        for label, text in (("where", error.where), ("fix", error.fix)):
            if text:
                self.notes.print(f"  {label}: ", style="bold", end="")
                self.notes.print(text, markup=False, soft_wrap=True)
