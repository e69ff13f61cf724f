"""Learners that make every update together: real gloo and real rings, threads of one process."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from engine.executors.all_reduce import (
    LOOPBACK,
    AllReduce,
    RingAllReduce,
    TrustedAllReduce,
    gloo_on_this_host,
)
from engine.executors.collective import LearnerGroup
from tests.helpers.engine.rings import member_of, ring_seats

LIMIT_S = 60.0
Join = Callable[[int], AllReduce]


def one_host(directory: Path) -> Join:
    return lambda rank: gloo_on_this_host(str(directory / "meeting"), rank, 4)


def two_hosts_of_two(directory: Path) -> Join:
    seats, keyrings = ring_seats(2)

    def join(rank: int) -> AllReduce:
        host, number = divmod(rank, 2)
        here = gloo_on_this_host(str(directory / f"meeting-{host}"), number, 2)
        return RingAllReduce(here, member_of(seats, keyrings, host) if number == 0 else None)

    return join


def four_hosts(_: Path) -> Join:
    seats, keyrings = ring_seats(4)
    return lambda rank: RingAllReduce(None, member_of(seats, keyrings, rank))


def trusted(_: Path) -> Join:
    listener = socket.create_server((LOOPBACK, 0))
    endpoint = (LOOPBACK, listener.getsockname()[1])
    fd = listener.detach()
    return lambda rank: TrustedAllReduce(endpoint, LOOPBACK, rank, 4, listener=None if rank else fd)


@pytest.mark.parametrize("way", [one_host, two_hosts_of_two, four_hosts, trusted])
def test_all_get_the_same_bits_and_learn_how_large_an_update_is(
    tmp_path: Path, way: Callable[[Path], Join]
):
    """Whatever the way, until one of them withdraws."""
    join = way(tmp_path)
    shares = [torch.randn(50_000, generator=torch.manual_seed(rank)) for rank in range(4)]

    def learn(rank: int) -> tuple[list[int | None], torch.Tensor]:
        group = LearnerGroup(join(rank), rank, 4)
        sizes = [group.all_agree(100 + rank), group.all_agree(2**40)]
        total = group.sum(shares[rank])
        gradient = shares[rank].clone()
        group.all_reduce_sum(gradient)
        assert torch.equal(gradient, total)
        if rank == 3:
            group.withdraw()
        else:
            sizes.append(group.all_agree(100))
        group.close()
        return sizes, total

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(learn, range(4), timeout=LIMIT_S))
    assert [sizes for sizes, _ in found] == [*[[406, 2**42, None]] * 3, [406, 2**42]]
    torch.testing.assert_close(found[0][1], sum(shares), rtol=0, atol=1e-5)
    assert all(torch.equal(total, found[0][1]) for _, total in found)
