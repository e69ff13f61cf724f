"""Ray: remote actors return arrays, which the driver gets and copies; two calls under way each."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import ray

from tianji_cli.bench.transport.programs.harness import main, read_job
from tianji_cli.bench.transport.programs.workers import Ends, pattern

UNDER_WAY = 2
STORE_BYTES = 2**31


class Sender:
    """Returns its message."""

    def __init__(self, index: int, size_bytes: int) -> None:
        self._source = pattern(index, size_bytes)
        self._message = np.empty(size_bytes, np.uint8)

    def message(self, is_stamped: bool = False) -> np.ndarray:
        if is_stamped:
            self._source[:8].view("<i8")[0] = time.monotonic_ns()
        np.copyto(self._message, self._source)
        return self._message


class Returns(Ends):
    """What `ray.get` gives is read from Ray's store, as its users get it."""

    is_pulled = True

    def __init__(self, job: dict[str, Any], size_bytes: int) -> None:
        super().__init__(job, size_bytes)
        if not ray.is_initialized():
            ray.init(
                num_cpus=os.cpu_count(),
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                log_to_driver=False,
                runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}},
            )
        sender: Any = ray.remote(num_cpus=0)(Sender)
        self._actors = [sender.remote(i, size_bytes) for i in range(self.senders)]

    def receive(self, target: np.ndarray, count: int) -> None:
        left = count
        calls = {}
        for actor in self._actors * UNDER_WAY:
            if left:
                calls[actor.message.remote()] = actor
                left -= 1
        while calls:
            ready, _ = ray.wait(list(calls), num_returns=1)
            actor = calls.pop(ready[0])
            np.copyto(target, ray.get(ready[0]))
            if left:
                calls[actor.message.remote()] = actor
                left -= 1

    def pull_stamped(self, target: np.ndarray) -> None:
        np.copyto(target, ray.get(self._actors[0].message.remote(True)))

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)


if __name__ == "__main__":
    main(Returns, read_job())
