"""XingTian's own way from explorer to learner: plasma store, broker, ZeroMQ, controller's queue.

All parts are XingTian's own objects and threads; only the broker's thread that would start games is
left out. XingTian bounds nothing, so senders wait for the receiver once a store's worth is on its
way; otherwise the store would overflow. Python 3.7.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from typing import Any

import numpy as np
from xt.framework.broker import Broker, Controller
from zeus.common.ipc.message import message
from zeus.common.ipc.uni_comm import UniComm

from tianji_cli.bench.transport.programs.harness import main, read_job
from tianji_cli.bench.transport.programs.workers import Ends

STORE_BYTES = 10**9
MAX_WAITING_BYTES = 256 * 2**20


class ThroughBroker(Ends):
    """Explorer (sender) -> ShareByPlasma -> Broker -> CommByZmq -> Controller -> LocalMsg."""

    def __init__(self, job: dict[str, Any], size_bytes: int) -> None:
        super().__init__(job, size_bytes)
        path = f"{job['scratch']}/plasma{size_bytes}"
        self._share = UniComm("ShareByPlasma", size=STORE_BYTES, path=path)
        waiting = max(2, min(64, MAX_WAITING_BYTES // size_bytes))
        self._room = multiprocessing.Semaphore(waiting)
        self._ports = multiprocessing.SimpleQueue()  # type: ignore[var-annotated]
        self._broker = os.fork()
        if self._broker == 0:
            self._be_broker()

    def _be_broker(self) -> None:
        push, pull = self._ports.get()
        broker = Broker("127.0.0.1", 0, push, pull)
        broker.explorer_share_qs["T0"] = self._share
        broker.recv_explorer_q_ready = True
        threading.Thread(target=broker.recv_explorer).start()
        threading.Event().wait()

    def open_receiver(self) -> None:
        controller = Controller([["127.0.0.1", "", ""]])
        self._learner = controller.register("train", "send")
        threading.Thread(target=controller.recv_broker_task, daemon=True).start()
        ports = controller.port_info
        self._ports.put((ports["recv"]["port"], ports["send"][0]["port"]))

    def send(self, source: np.ndarray, count: int) -> None:
        for _ in range(count):
            self._room.acquire()
            self._share.send(message({"data": source.copy()}, broker_id=0, agent_id=0, cmd="train"))

    def receive(self, target: np.ndarray, count: int) -> None:
        for _ in range(count):
            np.copyto(target, self._learner.recv()["data"]["data"])
            self._room.release()

    def close(self) -> None:
        """The broker ends with its family; XingTian's own end kills by name."""


if __name__ == "__main__":
    main(ThroughBroker, read_job())
