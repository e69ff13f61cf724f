"""A simulated network: what is between hosts passes threads that encrypt, and their links.

Every stage passes frames on in the order in which they came. Large frames go in chunks, so a chunk
is at the next stage while the one after it is still at this one.
"""

from __future__ import annotations

from collections.abc import Iterator

from tianji_cli.config.cluster import ClusterNetworkSpec

LOCAL_S = 50e-6
"""Between processes of one host: a Unix socket, or a doorbell; contents are in shared memory."""
SMALL_BYTES = 4096
"""Frames up to this take no noticeable part of a link."""
CHUNK_BYTES = 2**20
"""What is at one stage at once: about what kernels buffer."""
MEGA = 1e6


class Stage:
    """A thread or a link that passes on so many bytes per second.

    Args:
        bytes_per_s: Its rate.
    """

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self.num_bytes = 0
        self._free_s = 0.0

    def take(self, num_bytes: int, first_s: float, last_s: float) -> tuple[float, float]:
        """Passes a frame on.

        Args:
            num_bytes: Its size.
            first_s, last_s: When its first and its last chunk are here.

        Returns:
            When they have left.
        """
        self.num_bytes += num_bytes
        chunk_s = min(num_bytes, CHUNK_BYTES) / self.bytes_per_s
        start_s = max(first_s, self._free_s)
        self._free_s = start_s + num_bytes / self.bytes_per_s  # others pass between slow chunks
        end_s = max(self._free_s, last_s + chunk_s)
        return start_s + chunk_s, end_s


class Network:
    """All links of a cluster.

    Args:
        spec: Bandwidth, latency and encryption.
    """

    def __init__(self, spec: ClusterNetworkSpec) -> None:
        self._latency_s = spec.latency_ms / 1e3
        self._link_rate = spec.bandwidth_mbit_s * MEGA / 8
        self._crypt_rate = spec.encryption_mb_s * MEGA
        self._out: dict[str, Stage] = {}
        """The link of a host, outward."""
        self._into: dict[str, Stage] = {}
        self._encrypting: dict[str, Stage] = {}
        """The thread of a process that encrypts and decrypts."""

    @property
    def latency_s(self) -> float:
        """Between two hosts, one way."""
        return self._latency_s

    @property
    def ring_bytes_per_s(self) -> float:
        """Of a connection between two hosts."""
        return min(self._link_rate, self._crypt_rate)

    def arrival_s(
        self, source: tuple[str, str], target: tuple[str, str], num_bytes: int, now_s: float
    ) -> float:
        """When a frame that is sent now arrives.

        Args:
            source, target: Process and host of both ends.
            num_bytes: Of the frame.
            now_s: Simulated time.
        """
        (sender, here), (receiver, there) = source, target
        if here == there:
            return now_s + LOCAL_S
        if num_bytes <= SMALL_BYTES:
            return now_s + LOCAL_S + self._latency_s
        first_s = last_s = now_s
        for stage in (
            self._stage(self._encrypting, sender, self._crypt_rate),
            self._stage(self._out, here, self._link_rate),
            self._stage(self._into, there, self._link_rate),
            self._stage(self._encrypting, receiver, self._crypt_rate),
        ):
            first_s, last_s = stage.take(num_bytes, first_s, last_s)
        return last_s + self._latency_s

    @property
    def stages(self) -> Iterator[tuple[str, Stage]]:
        """All links and threads that something has passed, with their names."""
        for words, stages in (
            ("link of {}, outward", self._out),
            ("link of {}, inward", self._into),
            ("encryption of {}", self._encrypting),
        ):
            for name, stage in stages.items():
                yield words.format(name), stage

    @staticmethod
    def _stage(stages: dict[str, Stage], name: str, rate: float) -> Stage:
        found = stages.get(name)
        if found is None:
            found = stages[name] = Stage(rate)
        return found
