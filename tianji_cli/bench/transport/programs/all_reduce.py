"""How fast learners add up gradients: the encrypted ring beside plain gloo, on this machine.

    python -m tianji_cli.bench.transport.programs.all_reduce [--ranks 2 4] [--megabytes 1 16]

Each learner is a process with both groups, over the loopback, and adds up a vector by the one and
then by the other, in turn: what else runs here slows both down. A vote is what learners exchange
before each update. Times are those of the first learner, in ms.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from engine.executors.all_reduce import LOOPBACK, AllReduce, RingAllReduce, gloo_on_this_host
from engine.host.malloc import keep_freed_memory
from engine.wire.keys import Keyring, make_keyrings
from engine.wire.learner_ring import LearnerRing, RingSeat
from engine.wire.socket_factory import Link

MEGABYTE = 10**6
VOTE_VALUES = 2
VOTES_AS_OFTEN = 20
"""Votes for each repetition of a vector."""
Times = dict[str, list[float]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4], help="learners")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[1, 16], help="of a vector")
    parser.add_argument("--repeats", type=int, default=25, help="of each sum")
    wanted = parser.parse_args(arguments)
    print(f"{'learners':>8} {'vector':>8}  {'ring: median':>12} {'best':>8}  {'gloo: median':>12}"
          f" {'best':>8}  {'ring / gloo':>11}")  # fmt: skip
    for count in wanted.ranks:
        for megabytes in (0, *wanted.megabytes):
            times = measure(count, megabytes * MEGABYTE // 4, wanted.repeats)
            print(_row(count, megabytes, times), flush=True)


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def _row(count: int, megabytes: int, times: Times) -> str:
    ring, gloo = (1000 * statistics.median(times[way]) for way in ("ring", "gloo"))
    best = {way: 1000 * min(taken) for way, taken in times.items()}
    size = f"{megabytes} MB" if megabytes else "vote"
    return (
        f"{count:>8} {size:>8}  {ring:>12.3f} {best['ring']:>8.3f}  {gloo:>12.3f}"
        f" {best['gloo']:>8.3f}  {ring / gloo:>11.2f}"
    )


def measure(count: int, num_values: int, repeats: int) -> Times:
    """Seconds of each sum, by way.

    Args:
        count: Learners.
        num_values: Float32 values of a vector; 0 for votes.
        repeats: Of each way.
    """
    seats, keyrings = _seats(count)
    context = multiprocessing.get_context("spawn")
    answers: SimpleQueue[Times] = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as directory:
        store = str(Path(directory) / "store")
        members = [
            context.Process(
                target=_play, args=(seat, keyrings, store, num_values, repeats, answers)
            )
            for seat in seats
        ]
        for member in members:
            member.start()
        for member in members:
            member.join()
            if member.exitcode:
                raise SystemExit("a learner has failed; see above")
    return answers.get()


def _seats(count: int) -> tuple[list[RingSeat], dict[str, Keyring]]:
    names = [f"learner-{rank}" for rank in range(count)]
    with ExitStack() as held:
        servers = [held.enter_context(socket.create_server((LOOPBACK, 0))) for _ in names]
        endpoints = [f"tcp://{LOOPBACK}:{server.getsockname()[1]}" for server in servers]
    seats = [
        RingSeat(
            position=rank,
            count=count,
            bind=endpoints[rank],
            left=names[rank - 1],
            right=Link(peer=names[(rank + 1) % count], endpoint=endpoints[(rank + 1) % count]),
            hosts=dict.fromkeys(names, "this machine"),
        )
        for rank in range(count)
    ]
    return seats, make_keyrings(names)


def _play(
    seat: RingSeat,
    keyrings: dict[str, Keyring],
    store: str,
    num_values: int,
    repeats: int,
    answers: SimpleQueue[Times],
) -> None:
    """One learner."""
    import torch

    keep_freed_memory()
    torch.set_num_threads(1)
    name = f"learner-{seat.position}"
    ring = RingAllReduce(None, LearnerRing(seat, name, keyrings[name]))
    gloo = gloo_on_this_host(store, seat.position, seat.count)
    ways: dict[str, AllReduce] = {"ring": ring, "gloo": gloo}
    values = torch.ones(num_values) if num_values else torch.ones(VOTE_VALUES, dtype=torch.int64)
    times: Times = {way: [] for way in ways}
    for _ in range(repeats if num_values else repeats * VOTES_AS_OFTEN):
        for way, group in ways.items():
            own = values.clone()
            gloo.add_up(torch.ones(1))  # all begin at once
            began_s = time.perf_counter()
            group.add_up(own)
            times[way].append(time.perf_counter() - began_s)
            assert own.min() == own.max() == seat.count, "the sum is wrong"
    ring.close()
    gloo.close()
    if seat.position == 0:
        answers.put(times)


if __name__ == "__main__":
    main()
