"""Where learners that take every update together meet: real gloo, two threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from engine.control_protocol import Rendezvous
from engine.executors.collective import GlooGroup

LIMIT_S = 60.0


def together(place: Rendezvous, learn: Callable[[GlooGroup], list[int | None]]) -> list[object]:
    """What each of two learners gets."""
    found: list[object] = [None, None]

    def play(rank: int) -> None:
        group = GlooGroup(place, rank, 2)
        found[rank] = learn(group)

    threads = [threading.Thread(target=play, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    return found


def test_all_learn_how_large_an_update_is_or_that_there_is_none(tmp_path: Path):
    def learn(group: GlooGroup) -> list[int | None]:
        sizes = [group.all_agree(100 + group.rank), group.all_agree(2**40)]
        if group.rank == 1:
            group.withdraw()
            return sizes
        return [*sizes, group.all_agree(100)]

    place = Rendezvous(file=str(tmp_path / "meeting"), address="127.0.0.1")
    assert together(place, learn) == [[201, 2**41, None], [201, 2**41]]
