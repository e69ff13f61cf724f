"""CUDA as a device. Not yet run on a GPU; `make test-gpu` proves it (docs/gpus.md).

Only what PyTorch documents is used: notes on CUDA semantics, `torch.cuda.Stream`, `Event`,
`CUDAGraph` and `graph`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from engine.devices.interface import DeviceEvent, NotCapturableError

NUM_WARM_UPS = 3
"""As PyTorch's notes do before a capture: libraries allocate workspaces in the first calls."""
URGENT, ORDINARY = -1, 0
"""Priorities of streams; lower is earlier."""
_CAPTURING = threading.Lock()
"""Only one capture may be under way in a process."""


class CudaEvent:
    """See `DeviceEvent`.

    Args:
        event: Recorded.
    """

    def __init__(self, event: torch.cuda.Event) -> None:
        self.event = event

    def has_happened(self) -> bool:
        return bool(self.event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        self.event.synchronize()


class CudaStream:
    """See `DeviceStream`.

    Args:
        stream: Of PyTorch.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream

    def use(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)

    def record(self) -> CudaEvent:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return CudaEvent(event)

    def wait_for(self, event: DeviceEvent) -> None:
        assert isinstance(event, CudaEvent), "the event is of another kind of device"
        self._stream.wait_event(event.event)


class CudaDevice:
    """See `Device`.

    Args:
        name: `cuda:N`, among the GPUs that this process can see.
    """

    def __init__(self, name: str) -> None:
        self.place = torch.device(name)
        self.main = CudaStream(torch.cuda.default_stream(self.place))

    def stream(self, *, is_urgent: bool = False) -> CudaStream:
        """See `Device`."""
        priority = URGENT if is_urgent else ORDINARY
        stream = torch.cuda.Stream(self.place, priority)  # type: ignore[no-untyped-call]
        return CudaStream(stream)

    def pinned(self, num_bytes: int) -> Tensor:
        """See `Device`."""
        return torch.zeros(num_bytes, dtype=torch.uint8, pin_memory=True)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """See `Device`."""
        target.copy_(source, non_blocking=True)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """See `Device`. Other threads of the process may use the device meanwhile."""
        stream = torch.cuda.Stream(self.place)  # type: ignore[no-untyped-call]
        graph = torch.cuda.CUDAGraph()
        with _CAPTURING, torch.cuda.device(self.place):
            stream.wait_stream(torch.cuda.current_stream(self.place))
            # The outer block leads the thread back to its stream where a failed capture does not.
            with torch.cuda.stream(stream):
                for _ in range(NUM_WARM_UPS):
                    work()
                try:
                    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                        work()
                except RuntimeError as error:
                    reason = str(error).strip().splitlines()
                    raise NotCapturableError(reason[0] if reason else "unknown") from error
            torch.cuda.current_stream(self.place).wait_stream(stream)
        return graph.replay
