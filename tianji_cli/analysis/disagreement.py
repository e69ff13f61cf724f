"""Contradictions in the files of a run."""

from __future__ import annotations

import msgspec

Number = int | float | bool | None


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that one file states and the others contradict.

    Attributes:
        where: File, and row (from 1) if it is a table.
        name: The field, or the rule that is broken.
        written: What the file says.
        rebuilt: What follows from the other rows.
    """

    where: str
    name: str
    written: Number
    rebuilt: Number
