"""The harness of every method: the same messages, pacing, verification and clock.

For each size, senders send to one receiver as fast as they can. Each message is new: its sender
writes it whole into the memory that it is sent from, as an actor writes a rollout, and it ends in
the receiver's own memory, the same array each time. Both are part of the time. Before the clock
runs, messages that differ from each other are compared byte by byte with what was sent; after it
has stopped, the last message is.

Works with Python 3.7 and NumPy 1.17; knows nothing of TianJi.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tianji_cli.bench.transport.programs.workers import (
    HEAD_BYTES,
    NUMBER,
    STAMP_BYTES,
    Ends,
    Workers,
    listen,
    pattern,
    serve,
)

NUM_VERIFIED = 5
"""Messages of each sender that are compared before the clock runs."""
FIRST_COUNT = 2
MOST_GROWTH = 16.0
EXIT_ALONE = 4


class WrongBytesError(Exception):
    """A message arrived that differs from what was sent."""


def measure(
    ends_type: type[Ends],
    job: dict[str, Any],
    listening: Callable[[], None] | None = None,
) -> list[dict[str, Any]]:
    """Measures all sizes.

    Args:
        ends_type: The way to transmit.
        job: The request.
        listening: Called when senders may call, for those that are not forked.

    Returns:
        One point for each size.

    Raises:
        WrongBytesError: A message arrived that differs from what was sent.
    """
    with listen(job["control"]) as server:
        if listening is not None:
            listening()
        return [_measure_size(ends_type(job, size), job, server) for size in job["sizes_bytes"]]


def _measure_size(ends: Ends, job: dict[str, Any], server: socket.socket) -> dict[str, Any]:
    workers = Workers(ends, server) if not ends.is_pulled else None
    ends.open_receiver()
    if workers is not None:
        workers.gather(ends)
    target = np.zeros(ends.size_bytes, np.uint8)
    gc.collect()
    gc.freeze()
    _verify(ends, workers, target)
    count, seconds = _timed(ends, workers, target, float(job["measure_s"]))
    latencies = []
    if ends.size_bytes in job["latency_sizes_bytes"] and ends.senders == 1:
        latencies = [_one_way_s(ends, workers, target) for _ in range(int(job["latency_repeats"]))]
    if workers is not None:
        workers.dismiss()
    ends.close()
    point = {
        "size_bytes": ends.size_bytes,
        "messages": count * ends.senders,
        "seconds": seconds,
        "latencies_s": latencies,
    }
    rate = count * ends.senders * ends.size_bytes / seconds / 1e6
    sys.stderr.write(f"{ends.size_bytes} B: {rate:.0f} MB/s\n")
    sys.stderr.flush()
    return point


def _verify(ends: Ends, workers: Workers | None, target: np.ndarray) -> None:
    """Compares differing messages of all senders, whole."""
    wanted = [pattern(index, ends.size_bytes) for index in range(ends.senders)]
    if workers is not None:
        workers.tell(op="differ", count=NUM_VERIFIED)
    seen = []
    for _ in range(NUM_VERIFIED * ends.senders):
        target[:] = 0
        ends.receive(target, 1)
        seen.append(_check(target, wanted))
    if not ends.is_pulled:
        numbers = range(1, NUM_VERIFIED + 1)
        if sorted(seen) != [(s, n) for s in range(ends.senders) for n in numbers]:
            raise WrongBytesError(f"messages are missing or arrived twice: {seen!r}")


def _check(target: np.ndarray, wanted: list[np.ndarray]) -> tuple[int, int]:
    """Sender and number of a message. Raises WrongBytesError."""
    sender = int(target[STAMP_BYTES:HEAD_BYTES].view(NUMBER)[0])
    number = int(target[:STAMP_BYTES].view(NUMBER)[0])
    is_known = 0 <= sender < len(wanted)
    if not is_known or not np.array_equal(target[STAMP_BYTES:], wanted[sender][STAMP_BYTES:]):
        raise WrongBytesError(f"a message of {len(target)} bytes differs from what was sent")
    return sender, number


def _timed(
    ends: Ends, workers: Workers | None, target: np.ndarray, measure_s: float
) -> tuple[int, float]:
    """Sends more and more until it takes long enough; messages of each sender, and seconds."""
    count = FIRST_COUNT
    while True:
        start_s = time.perf_counter()
        if workers is not None:
            workers.tell(op="send", count=count)
        ends.receive(target, count * ends.senders)
        seconds = time.perf_counter() - start_s
        if seconds >= measure_s:
            break
        growth = min(MOST_GROWTH, max(1.3, 1.25 * measure_s / max(seconds, 1e-6)))
        count = int(count * growth) + 1
    _check(target, [pattern(index, ends.size_bytes) for index in range(ends.senders)])
    return count, seconds


def _one_way_s(ends: Ends, workers: Workers | None, target: np.ndarray) -> float:
    """Time from the start of a sender until all bytes are in the receiver's memory, without load.

    Where clocks differ, between hosts, from the moment the receiver asks for it over TCP.
    """
    asked_ns = time.monotonic_ns()
    if workers is not None:
        workers.tell_first(op="stamp")
        ends.receive(target, 1)
    else:
        ends.pull_stamped(target)
    done_ns = time.monotonic_ns()
    if ends.job["shares_clock"]:
        asked_ns = int(target[:STAMP_BYTES].view(NUMBER)[0])
    return (done_ns - asked_ns) / 1e9


def main(
    ends_type: type[Ends],
    job: dict[str, Any],
    listening: Callable[[], None] | None = None,
) -> None:
    """Runs the job in this process as the receiver and writes its output."""
    write_points(job, measure(ends_type, job, listening))


def play(ends_type: type[Ends]) -> None:
    """The program: `JOB` is the receiver, `JOB INDEX` a sender that was not forked."""
    job = read_job()
    if len(sys.argv) < 3:
        main(ends_type, job, lambda: print("listening", flush=True))
        return
    for size_bytes in job["sizes_bytes"]:
        serve(ends_type(job, size_bytes), int(sys.argv[2]))


def write_points(job: dict[str, Any], points: list[dict[str, Any]]) -> None:
    """Writes the output, complete or not at all; to standard output if the file is called `-`."""
    if job["output"] == "-":
        print(json.dumps({"points": points}), flush=True)
        return
    part = job["output"] + ".part"
    with open(part, "w") as file:
        json.dump({"points": points}, file)
    os.replace(part, job["output"])


def read_job() -> dict[str, Any]:
    """The job that the command line names; `-` is the first line of standard input, and then this
    process ends when its standard input does: its parent is gone."""
    if sys.argv[1] == "-":
        job: dict[str, Any] = json.loads(sys.stdin.buffer.readline().decode())
        threading.Thread(target=_end_with_input, daemon=True).start()
        return job
    with open(sys.argv[1]) as file:
        job = json.load(file)
    return job


def _end_with_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(EXIT_ALONE)
