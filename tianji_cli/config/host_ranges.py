"""`box[1-8]`: patterns for many hosts."""

from __future__ import annotations

import itertools
import math
import re

_RANGE = re.compile(r"\[(?P<first>\d+)-(?P<last>\d+)\]")
MAX_HOSTS = 1024


def expand_range(text: str) -> list[str]:
    """All names of a host pattern; leading zeros of the first number are kept.

    >>> expand_range("box[1-3]")
    ['box1', 'box2', 'box3']
    >>> expand_range("node[08-10].lab")
    ['node08.lab', 'node09.lab', 'node10.lab']
    >>> expand_range("plain")
    ['plain']

    Raises:
        ValueError: A range runs backwards, there are too many names, or a bracket is not a range.
    """
    numbers, texts = [], []
    end = 0
    for match in _RANGE.finditer(text):
        texts.append(text[end : match.start()])
        numbers.append(_numbers_of(match, text))
        end = match.end()
    texts.append(text[end:])
    if any("[" in part or "]" in part for part in texts):
        raise ValueError(f"{text!r} holds a bracket that is no range such as [1-8]")
    if math.prod(map(len, numbers)) > MAX_HOSTS:
        raise ValueError(f"{text!r} stands for more than {MAX_HOSTS} hosts")
    return [
        "".join(itertools.chain.from_iterable(zip(texts, (*chosen, ""), strict=True)))
        for chosen in itertools.product(*numbers)
    ]


def _numbers_of(match: re.Match[str], text: str) -> list[str]:
    """The numbers of one range, as written."""
    first, last = int(match["first"]), int(match["last"])
    if last < first:
        raise ValueError(f"{text!r} runs backwards")
    if last - first >= MAX_HOSTS:
        raise ValueError(f"{text!r} stands for more than {MAX_HOSTS} hosts")
    width = len(match["first"]) if match["first"].startswith("0") else 0
    return [f"{number:0{width}d}" for number in range(first, last + 1)]
