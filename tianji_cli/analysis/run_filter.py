"""Which rows of `tianji runs` are wanted, and in which order (pure functions)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from engine.config.config_file import suggest
from engine.errors import ConfigError
from tianji_cli.analysis.runs import RunRow

STATUSES = ("ok", "failed", "interrupted", "detached", "unfinished", "unreadable")
KIND_NAMES = ("run", "study", "bench", "scaling", "transport", "published")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

SORT_KEYS: dict[str, Callable[[RunRow], float | str | None]] = {
    "started": lambda row: row.started_at,
    "name": lambda row: row.run_id,
    "return": lambda row: row.return_mean,
    "steps": lambda row: row.env_steps_collected,
    "rate": lambda row: row.collect_per_s,
    "time": lambda row: row.wall_s,
    "reached": lambda row: row.time_to_threshold_s,
}


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """What the user asks for; an empty text or None asks for nothing.

    Attributes:
        env, algorithm, policy, status, kind: Globs, comma-separated, of which one must fit; of an
            environment's id a part is enough.
        since: A UTC date or time, or how long ago: `2026-01-31`, `7d`.
        words: Each must be somewhere in the row.
        sort: One of `SORT_KEYS`; None: the order of the list, oldest first.
        count: At most so many rows, the last ones.
        is_reversed: Whether the last one comes first.
    """

    env: str = ""
    algorithm: str = ""
    policy: str = ""
    status: str = ""
    kind: str = ""
    since: str = ""
    words: tuple[str, ...] = ()
    sort: str | None = None
    count: int | None = None
    is_reversed: bool = False


def select_runs(rows: Sequence[RunRow], wanted: RunFilter, now: datetime) -> list[RunRow]:
    """The rows that fit, in the order asked for; rows without the key to sort by come first.

    Args:
        rows: Oldest first.
        wanted: What is asked for.
        now: For spans of time; with a time zone.

    Raises:
        ConfigError: No such status, kind, key or time.
    """
    _check_names(wanted.status, STATUSES, "--status")
    _check_names(wanted.kind, KIND_NAMES, "--kind")
    _check_names(wanted.sort or "", tuple(SORT_KEYS), "--sort")
    since = _begin(wanted.since, now) if wanted.since else None
    found = [row for row in rows if _fits(row, wanted) and _is_since(row, since)]
    if wanted.sort:
        key = SORT_KEYS[wanted.sort]
        found = [
            *(row for row in found if key(row) is None),
            *sorted((row for row in found if key(row) is not None), key=key),  # type: ignore[arg-type]
        ]
    if wanted.count is not None:
        found = found[max(0, len(found) - wanted.count) :]
    return found[::-1] if wanted.is_reversed else found


def _fits(row: RunRow, wanted: RunFilter) -> bool:
    columns = (
        (wanted.env, row.env_id, True),
        (wanted.algorithm, row.algorithm, False),
        (wanted.policy, row.policy, False),
        (wanted.status, row.status, False),
        (wanted.kind, row.kind, False),
    )
    if not all(_is_one_of(globs, value, part) for globs, value, part in columns if globs):
        return False
    texts = (row.run_id, row.env_id, row.algorithm, row.policy, row.status, row.kind, row.problem)
    whole = "\n".join(text.casefold() for text in texts if text)
    return all(word.casefold() in whole for word in wanted.words)


def _is_one_of(globs: str, value: str | None, part_is_enough: bool) -> bool:
    """Whether a value fits one of several globs, whatever their case."""
    if value is None:
        return False
    text = value.casefold()
    return any(
        fnmatchcase(text, glob) or (part_is_enough and glob in text) for glob in _parts(globs)
    )


def _parts(globs: str) -> list[str]:
    return [part for word in globs.split(",") if (part := word.strip().casefold())]


def _check_names(globs: str, known: Sequence[str], where: str) -> None:
    """Raises ConfigError if one of these names fits nothing that there can be."""
    for glob in _parts(globs):
        if not any(fnmatchcase(name, glob) for name in known):
            raise ConfigError(f"there is no {glob!r}", where=where, fix=suggest(glob, known))


def _is_since(row: RunRow, since: datetime | None) -> bool:
    if since is None:
        return True
    began = _time_of(row.started_at or "")
    return began is not None and began >= since


def _begin(text: str, now: datetime) -> datetime:
    """The time that `--since` means.

    Raises:
        ConfigError: It is none.
    """
    if span := _SPAN.fullmatch(text.strip()):
        try:
            return now - timedelta(**{_UNITS[span[2]]: float(span[1])})
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)
    found = _time_of(text.strip())
    if found is None:
        raise ConfigError(
            f"{text!r} is no time",
            where="--since",
            fix="a UTC date or time such as 2026-01-31 or 2026-01-31T18:00, or a span such as 12h",
        )
    return found


def _time_of(text: str) -> datetime | None:
    """A time in ISO 8601, in UTC unless it says otherwise; None if it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
