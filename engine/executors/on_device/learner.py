"""A learner on a device whose actors are elsewhere: it updates in a thread of its own.

    loop's thread    give batch 1   stage batch 2   give batch 2   send weights 1   stage batch 3
    update's thread        update 1 ..............|      update 2 ...................|

So while the device computes, the role's loop receives and stages the next batch and sends the last
weights. With policy `local` there is no such thread, since the order of events depends on nothing
but the seed there.
"""

from __future__ import annotations

import concurrent.futures
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from engine.blueprint import Blueprint
from engine.clock import Clock
from engine.devices.interface import Device
from engine.errors import RunFailedError
from engine.executors.learner import LearnerExecutor
from engine.executors.on_device.memory import AheadMemory
from engine.progress import Resumed
from engine.roles.commands import Command, StageAhead, Update, UpdateFromSamples
from engine.roles.events import Event, WeightsExported
from engine.rollout import Rollout, Samples
from engine.timing import OFF, UPDATING, Sections
from engine.trace.warm_start import WarmStart

if TYPE_CHECKING:
    from engine.executors.collective import LearnerGroup

WAIT_S = 0.001
"""For the end of an update, before messages are looked at again."""
PUBLISHING_S = 0.0002
"""The same while weights are on their way."""


class DeviceLearnerExecutor(LearnerExecutor):
    """Performs a learner's commands; updates go on while others are performed.

    A command that needs the state waits for the update under way, whose events then come first.

    Args:
        blueprint, checkpoints, clock, group, compiles, resumed, warm_start, name: See
            `LearnerExecutor`; with `compiles` its steps are graphs of the device.
        device: Where it trains.
        sections: Where the time of the loop's thread is counted.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        checkpoints: Path | None,
        clock: Clock,
        group: LearnerGroup | None = None,
        *,
        device: Device,
        compiles: bool = False,
        resumed: tuple[Resumed, Path] | None = None,
        warm_start: tuple[WarmStart, Path] | None = None,
        sections: Sections = OFF,
        name: str = "learner-0",
    ) -> None:
        self._ahead = AheadMemory(blueprint, device)
        super().__init__(
            blueprint,
            checkpoints,
            clock,
            group,
            compiles=compiles,
            memory=self._ahead,
            resumed=resumed,
            warm_start=warm_start,
            name=name,
        )
        self._name = name
        self._limit_s = blueprint.experiment.watchdog.stalled_s
        self._await = sections.timed(UPDATING, self._wait)
        self._pool = concurrent.futures.ThreadPoolExecutor(
            1, "update", initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
        )
        self._update_under_way: concurrent.futures.Future[list[Event]] | None = None
        self._began_s = 0.0

    def close(self) -> None:
        self._pool.shutdown()
        super().close()

    @property
    def is_busy(self) -> bool:
        return self._update_under_way is not None or self._ahead.publisher.is_busy

    def advance(self, budget_s: float) -> list[Event]:
        """Waits shortly for the update under way or for weights; returns what has come of them."""
        events = self._come()
        if events:
            return events
        self._await(budget_s)
        return self._come()

    def perform(self, command: Command) -> list[Event]:
        match command:
            case StageAhead(batch=batch):
                self._ahead.stage(batch)
                return []
            case Update(rollouts=rollouts):
                return self._begin(command, rollouts)
            case UpdateFromSamples(samples=samples):
                return self._begin(command, samples)
        before = self._settle()
        return [*before, *super().perform(command)]

    def _begin(self, command: Command, batch: tuple[Rollout, ...] | Samples) -> list[Event]:
        assert self._update_under_way is None, "a learner updates once at a time"
        events: list[Event] = []
        if self._prepares:  # each version is needed; the publisher may leave some out
            self._ahead.publisher.wait()
            events = self._come()
        self._ahead.prepare(batch)
        self._began_s = time.monotonic()
        self._update_under_way = self._pool.submit(self._train, command)
        return events

    def _train(self, command: Command) -> list[Event]:
        """In the thread of the updates."""
        with self._ahead.device.main.use():
            return super().perform(command)

    def _wait(self, budget_s: float) -> None:
        publisher, update = self._ahead.publisher, self._update_under_way
        if update is not None:
            limit_s = PUBLISHING_S if publisher.is_busy else WAIT_S
            concurrent.futures.wait([update], min(budget_s, limit_s))
            self._refuse_to_stand_still()
        else:
            publisher.wait()

    def _refuse_to_stand_still(self) -> None:
        """Raises RunFailedError: to the watchdog, a loop that waits for its device is at work."""
        if self._limit_s is not None and time.monotonic() - self._began_s > self._limit_s:
            raise RunFailedError(
                f"an update has not ended on {self._ahead.device.place} for {self._limit_s:g} s",
                where=self._name,
                fix="look at the GPU with nvidia-smi, or raise watchdog.stalled_s",
            )

    def _settle(self) -> list[Event]:
        """Waits until nothing is under way."""
        if self._update_under_way is not None:
            concurrent.futures.wait([self._update_under_way])
        self._ahead.publisher.wait()
        return self._come()

    def _come(self) -> list[Event]:
        """What has come of updates since the last call."""
        events: list[Event] = []
        update = self._update_under_way
        if update is not None and update.done():
            self._update_under_way = None
            events += update.result()
        while (weights := self._ahead.publisher.take()) is not None:
            events.append(WeightsExported(weights))
        return events
