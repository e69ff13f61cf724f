"""What a keeper may say: a host's answers are read only if they are as expected."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tianji_cli.connectors.keeper.frames import FrameError

_FIELDS: Mapping[str, Mapping[str, type]] = {
    "hello": {"home": str, "host": str, "user": str, "python": str, "num_cores": int},
    "beat": {},
    "out": {},
    "err": {},
    "eof": {"of": str},
    "more": {"of": str, "num_bytes": int},
    "done": {},
}
_OF_REFUSAL: Mapping[str, type] = {"error": int, "text": str}
_OF_DONE: Mapping[str, Mapping[str, type]] = {
    "spawn": {"code": int, "is_overdue": bool},
    "exists": {"is_there": bool},
}
"""By request: what its end says if the system has not refused."""


def check_answer(header: Mapping[str, object], request: str | None = None) -> None:
    """Checks the header of a frame.

    Args:
        header: Of the frame.
        request: What it answers; None if that is nobody's any more.

    Raises:
        FrameError: No keeper says this.
    """
    op = header.get("op")
    fields = _FIELDS.get(op) if isinstance(op, str) else None
    if fields is None or type(header.get("id")) is not int:
        raise _strange(header)
    if op == "done":
        is_refusal = "error" in header
        fields = _OF_REFUSAL if is_refusal else _OF_DONE.get(request or "", fields)
    for name, kind in fields.items():
        if type(header.get(name)) is not kind:
            raise _strange(header)


def _strange(header: Mapping[str, object]) -> FrameError:
    return FrameError(json.dumps(header)[:200].encode())
