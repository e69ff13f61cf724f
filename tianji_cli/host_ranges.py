"""`box[1-8]`: many hosts in one word."""

from __future__ import annotations

import re

_RANGE = re.compile(r"\[(?P<first>\d+)-(?P<last>\d+)\]")
MAX_HOSTS = 1024


def expand_range(text: str) -> list[str]:
    """All names that a host pattern stands for; zeros in front of the first number are kept.

    >>> expand_range("box[1-3]")
    ['box1', 'box2', 'box3']
    >>> expand_range("node[08-10].lab")
    ['node08.lab', 'node09.lab', 'node10.lab']
    >>> expand_range("plain")
    ['plain']

    Raises:
        ValueError: The range runs backwards, is too long, or a bracket is not a range.
    """
    match = _RANGE.search(text)
    if match is None:
        if "[" in text or "]" in text:
            raise ValueError(f"{text!r} holds a bracket that is no range such as [1-8]")
        return [text]
    first, last = int(match["first"]), int(match["last"])
    if last < first:
        raise ValueError(f"{text!r} runs backwards")
    if last - first >= MAX_HOSTS:
        raise ValueError(f"{text!r} stands for more than {MAX_HOSTS} hosts")
    width = len(match["first"]) if match["first"].startswith("0") else 0
    head, tail = text[: match.start()], text[match.end() :]
    return [
        name
        for number in range(first, last + 1)
        for name in expand_range(f"{head}{number:0{width}d}{tail}")
    ]
