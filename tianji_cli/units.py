"""Formats numbers for display, with their units."""

from __future__ import annotations

import math

from engine.trace.summary import LagSummary
from engine.wording import plural as plural

NONE = "–"


def count(value: int | None) -> str:
    """
    >>> count(1234567)
    '1,234,567'
    """
    return NONE if value is None else f"{value:,}"


def rate(value_per_s: float | None, of_what: str = "env steps") -> str:
    """
    >>> rate(12345.6)
    '12,346 env steps/s'
    """
    if value_per_s is None or not math.isfinite(value_per_s):
        return NONE
    digits = 0 if abs(value_per_s) >= 100 else 1
    return f"{value_per_s:,.{digits}f} {of_what}/s"


def seconds(value_s: float | None) -> str:
    """
    >>> seconds(0.0421), seconds(12.34), seconds(125.0), seconds(7384.0)
    ('42 ms', '12.3 s', '2 min 05 s', '2 h 03 min')
    """
    if value_s is None or not math.isfinite(value_s):
        return NONE
    if abs(value_s) < 0.9995:
        return f"{value_s * 1000:.0f} ms" if value_s else "0 s"
    if value_s < 99.95:
        return f"{value_s:.1f} s"
    if round(value_s) < 3600:
        return f"{round(value_s) // 60} min {round(value_s) % 60:02d} s"
    minutes = round(value_s / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def number(value: float | None, digits: int = 1) -> str:
    """
    >>> number(487.25), number(None)
    ('487.2', '–')
    """
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:,.{digits}f}"


def mean_return(value: float | None, threshold: float | None = None) -> str:
    """Small ones with more digits: the returns of many environments are between 0 and 1.

    Args:
        value: A mean return.
        threshold: The value it is compared with. Rounding never moves it across the threshold.

    >>> mean_return(487.25), mean_return(-9.375), mean_return(0.7964), mean_return(0.0)
    ('487.2', '-9.38', '0.796', '0')
    >>> mean_return(474.96, 475.0), mean_return(474.99996, 475.0), mean_return(475.04, 475.0)
    ('474.96', '474.99996', '475.0')
    """
    if not value:
        return NONE if value is None else "0"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    if threshold is not None and math.isfinite(value):
        is_above = value >= threshold
        while (round(value, digits) >= threshold) != is_above:  # with all digits it is `value`
            digits += 1
    return number(value, digits)


def short(value: float) -> str:
    """A return or threshold without needless zeros, but with all distinguishing digits.

    >>> short(475.0), short(-0.125), short(1234567.0), short(474.9625)
    ('475', '-0.125', '1,234,567', '474.9625')
    """
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,}"


def lag(value: LagSummary) -> str:
    """Minimum / mean / p95 / maximum, in versions.

    >>> lag(LagSummary(min=0, mean=0.987, p95=1.0, max=1))
    '0 / 1.0 / 1 / 1'
    """
    if value.min is None or value.mean is None or value.p95 is None or value.max is None:
        return NONE
    return f"{value.min} / {value.mean:.1f} / {value.p95:g} / {value.max}"


def size(num_bytes: float) -> str:
    """
    >>> size(34359738368), size(900)
    ('32.0 GiB', '900 B')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:,.1f} TiB"
