"""A transport suite as data: sizes, senders and methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from engine.config.config_file import convert, suggest
from engine.errors import ConfigError
from engine.spec import PositiveFloat, PositiveInt, Spec
from tianji_cli.bench.kinds import read_suite
from tianji_cli.bench.transport.methods import METHODS

MIN_BYTES = 64
MAX_BYTES = 2**30
MAX_SENDERS = 64


class TransportSuite(Spec, frozen=True, kw_only=True, tag_field="kind", tag="transport"):
    """Complete description of a benchmark of transport."""

    version: Literal[1] = 1
    """Version of the file format."""
    name: str
    """Part of the benchmark's id."""
    summary: str
    """One line about it, for reports."""
    sizes_bytes: tuple[PositiveInt, ...]
    """Sizes of a message: multiples of 8 from 64 bytes to 1 GiB."""
    senders: tuple[PositiveInt, ...] = (1, 2, 4, 8)
    """How many processes send to one receiver, at most 64."""
    methods: tuple[str, ...] = ()
    """By name; empty means all."""
    blocks: PositiveInt = 5
    """In each, every method runs once for each number of senders."""
    measure_s: PositiveFloat = 0.3
    """Each size is measured for at least this long."""
    latency_sizes_bytes: tuple[PositiveInt, ...] = ()
    """Of these, single messages are timed as well, with one sender."""
    latency_repeats: PositiveInt = 200
    """Single messages of each size that are timed."""


def load_transport_suite(name: str, settings: Sequence[str] = ()) -> TransportSuite:
    """Reads a suite: the name of one that comes with TianJi, or a path.

    Args:
        name: Such as `transport` or `my/suite.yaml`.
        settings: `senders=[1,4]`, laid over the file.

    Raises:
        ConfigError: No such suite, or it cannot be used.
    """
    document = read_suite(name, settings)
    suite = convert(document, TransportSuite)
    for method in suite.methods:
        if method not in METHODS:
            raise ConfigError(
                f"unknown method {method!r}",
                where=document.where(("methods",)),
                fix=suggest(method, METHODS),
            )
    for size in suite.sizes_bytes:
        if not MIN_BYTES <= size <= MAX_BYTES or size % 8:
            raise ConfigError(
                f"messages of {size} bytes cannot be measured",
                where=document.where(("sizes_bytes",)),
                fix=f"a multiple of 8 from {MIN_BYTES} to {MAX_BYTES}",
            )
    if max(suite.senders, default=0) > MAX_SENDERS or not suite.senders or not suite.sizes_bytes:
        raise ConfigError(
            f"sizes and senders must be given, and at most {MAX_SENDERS} senders",
            where=document.where(("senders",)),
            fix="senders: [1, 2, 4, 8]",
        )
    chosen = suite.methods or tuple(METHODS)
    return msgspec.structs.replace(suite, methods=chosen)
