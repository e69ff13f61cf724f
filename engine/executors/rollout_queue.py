"""What a rollout queue does: frees the memory of actors that died."""

from __future__ import annotations

from engine.roles.commands import Command, ForgetActor
from engine.roles.events import Event
from engine.wire.arena import Arena
from engine.wording import plural


class QueueExecutor:
    """Performs a rollout queue's commands.

    Args:
        arena: Memory that actors of this host write rollouts to, if there is any.
    """

    is_busy = False

    def __init__(self, arena: Arena | None = None) -> None:
        self._arena = arena

    def perform(self, command: Command) -> list[Event]:
        if not isinstance(command, ForgetActor):
            raise RuntimeError(f"a buffer cannot perform {type(command).__name__}")
        forget_actor(command, self._arena)
        return []

    def advance(self, budget_s: float) -> list[Event]:
        raise RuntimeError("a buffer's commands are done when performed")

    def close(self) -> None:
        """Nothing to release."""


def forget_actor(command: ForgetActor, arena: Arena | None) -> None:
    """Frees slots that a lost incarnation sent and that will never be received."""
    if arena is not None and (freed := arena.reclaim_sent(command.actor, command.epoch)):
        print(f"freed {plural(freed, 'slot')} of actor-{command.actor}, which is lost", flush=True)
