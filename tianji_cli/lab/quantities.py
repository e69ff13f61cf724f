"""Parses and formats rates, delays, losses and sizes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from engine.errors import ConfigError

_NUMBER = r"(?P<number>\d+(?:\.\d+)?)"
_RATE = re.compile(_NUMBER + r"\s*(?P<unit>kbit|mbit|gbit)", re.IGNORECASE)
_DELAY = re.compile(_NUMBER + r"\s*(?P<unit>us|ms|s)", re.IGNORECASE)
_LOSS = re.compile(_NUMBER + r"\s*(?P<unit>%?)")
_SIZE = re.compile(_NUMBER + r"\s*(?P<unit>kib|mib|gib)", re.IGNORECASE)
_BITS: Mapping[str, float] = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_SECONDS: Mapping[str, float] = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_PERCENT: Mapping[str, float] = {"": 0.01, "%": 0.01}
_BYTES: Mapping[str, float] = {"kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_OFF = ("off", "none", "0")

MIN_RATE_BITS_PER_S = 100_000
MAX_RATE_BITS_PER_S = 100_000_000_000
MAX_DELAY_S = 10.0
MAX_LOSS = 0.9


def parse_rate(text: str) -> int | None:
    """Bits per second of `1gbit`, or None for `off`.

    Raises:
        ConfigError: Not a rate, or not between 100kbit and 100gbit.

    >>> parse_rate("2.5gbit")
    2500000000
    """
    rate = _parse(text, _RATE, _BITS, where="--rate", example="1gbit, 100mbit or off")
    if rate == 0:
        return None
    if not MIN_RATE_BITS_PER_S <= rate <= MAX_RATE_BITS_PER_S:
        raise ConfigError(
            f"{text!r} is out of range", where="--rate", fix="between 100kbit and 100gbit, or off"
        )
    return round(rate)


def parse_delay(text: str) -> float:
    """Seconds of `0.2ms`; 0 for `off`.

    Raises:
        ConfigError: Not a time, or more than 10 s.
    """
    delay_s = _parse(text, _DELAY, _SECONDS, where="--delay", example="0.2ms, 200us or off")
    if delay_s > MAX_DELAY_S:
        raise ConfigError(f"{text!r} is too long", where="--delay", fix="at most 10s")
    return delay_s


def parse_loss(text: str) -> float:
    """Fraction of packets lost, from a percentage: `1` or `1%` is 0.01; 0 for `off`.

    Raises:
        ConfigError: Not a percentage, or more than 90.
    """
    loss = _parse(text, _LOSS, _PERCENT, where="--loss", example="1 (per cent), 0.1% or off")
    if loss > MAX_LOSS:
        raise ConfigError(f"{text!r} is too much", where="--loss", fix="at most 90 (per cent)")
    return loss


def parse_size(text: str) -> int:
    """Bytes of `8mib`; 0 for `0`.

    Raises:
        ConfigError: Not a size.
    """
    return round(_parse(text, _SIZE, _BYTES, where="--leave", example="8mib, 512kib or 0"))


def format_rate(bits_per_s: int | None) -> str:
    """The shortest text that `parse_rate` and tc(8) read back to the same number."""
    if bits_per_s is None:
        return "off"
    for unit in ("gbit", "mbit"):
        value = bits_per_s / _BITS[unit]
        if value >= 1 and round(value, 3) == value:
            return f"{value:g}{unit}"
    return f"{bits_per_s / 1e3:.10g}kbit"


def format_delay(delay_s: float) -> str:
    """Milliseconds with their unit, or `off`."""
    return f"{delay_s * 1e3:g}ms" if delay_s else "off"


def format_loss(loss: float) -> str:
    """Per cent with its sign, or `off`."""
    return f"{loss * 100:g}%" if loss else "off"


def count(number: int, noun: str) -> str:
    """`1 host`, `2 hosts`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _parse(
    text: str, pattern: re.Pattern[str], units: Mapping[str, float], *, where: str, example: str
) -> float:
    if text.strip().lower() in _OFF:
        return 0.0
    match = pattern.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} cannot be read", where=where, fix=f"for example {example}")
    return float(match["number"]) * units[match["unit"].lower()]
