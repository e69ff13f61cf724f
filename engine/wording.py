"""Numbers of things in what users read."""

from __future__ import annotations


def plural(value: int, noun: str) -> str:
    """A number and what it counts.

    >>> plural(1, "env step"), plural(5000, "env step"), plural(0, "process"), plural(2, "batch")
    ('1 env step', '5,000 env steps', '0 processes', '2 batches')
    """
    ending = "es" if noun.endswith(("s", "ch")) else "s"
    return f"{value:,} {noun}{'' if value == 1 else ending}"


def is_or_are(value: int) -> str:
    """
    >>> is_or_are(1), is_or_are(2)
    ('is', 'are')
    """
    return "is" if value == 1 else "are"
