"""Frames between simulated hosts: latency, the slowest stage, and who waits behind whom."""

from __future__ import annotations

import pytest

from tianji_cli.config.cluster import ClusterNetworkSpec
from tianji_cli.simulation.network import LOCAL_S, Network

LEARNER, OTHER, FAR, NEAR = ("learner", "a"), ("other", "a"), ("actor", "b"), ("actor", "a")


def network(megabits: float, encryption: float = 1e6) -> Network:
    return Network(
        ClusterNetworkSpec(bandwidth_mbit_s=megabits, latency_ms=1.0, encryption_mb_s=encryption)
    )


def test_on_one_host_bytes_take_no_time_and_small_frames_only_latency():
    found = network(8.0)
    assert found.arrival_s(LEARNER, NEAR, 10**9, 5.0) == 5.0 + LOCAL_S
    assert found.arrival_s(LEARNER, FAR, 100, 5.0) == pytest.approx(5.001, abs=1e-4)
    assert not list(found.stages)


def test_a_link_passes_one_frame_after_the_other():
    found = network(80.0)  # 10 MB/s
    arrivals = [found.arrival_s(LEARNER, FAR, 10**7, 0.0) for _ in range(3)]
    assert arrivals == pytest.approx([1.1, 2.1, 3.1], abs=0.02)  # its first chunk goes ahead
    assert dict(found.stages)["link of a, outward"].num_bytes == 3 * 10**7


def test_a_large_frame_is_not_held_back_at_every_stage():
    found = network(8e5, encryption=10.0)  # 100 GB/s, of which 10 MB/s encrypted
    assert found.arrival_s(LEARNER, FAR, 10**7, 0.0) == pytest.approx(1.1, abs=0.02)


def test_processes_of_a_host_share_its_link_but_not_the_thread_that_encrypts():
    by_link, by_thread = network(80.0), network(8e5, encryption=10.0)
    for found, later in ((by_link, 2.1), (by_thread, 1.1)):
        assert found.arrival_s(LEARNER, FAR, 10**7, 0.0) == pytest.approx(1.1, abs=0.02)
        receiver = ("elsewhere", "c")
        assert found.arrival_s(OTHER, receiver, 10**7, 0.0) == pytest.approx(later, abs=0.02)
