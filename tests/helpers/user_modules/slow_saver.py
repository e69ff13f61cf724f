"""Makes the disk stand still in the middle of a saved replay store; `modules: [slow_saver]`.

Stores of the first version that a process saves are written as always. Of a later one, a part of
a file is written; then `saving` is made in the working directory, and nothing happens for a while.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.executors import replay_saver
from engine.executors.replay_saver import ReplaySaver, ReplaySnapshot

HOLD_S = 8.0
_packed, _begin = replay_saver.packed, ReplaySaver.begin
_versions: list[int] = []


def begin(saver: ReplaySaver, snapshot: ReplaySnapshot) -> None:
    _versions.append(snapshot.version)
    _begin(saver, snapshot)


def held(rollouts: Iterable[bytes]) -> Iterator[bytes]:
    for number, piece in enumerate(_packed(rollouts)):
        yield piece
        if number == 4 and _versions[-1] > _versions[0]:
            Path("saving").touch()
            time.sleep(HOLD_S)


ReplaySaver.begin = begin  # type: ignore[method-assign]
replay_saver.packed = held
