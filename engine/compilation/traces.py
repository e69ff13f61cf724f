"""What is traced to make a library of each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.blueprint import Blueprint
from engine.compilation.collecting import trace_collect
from engine.compilation.library import Kind
from engine.compilation.prepared import trace_prepare
from engine.compilation.tracing import Traced, trace_act, trace_steps

TRACE: Mapping[Kind, Callable[[Blueprint], Traced]] = {
    "steps": trace_steps,
    "act": trace_act,
    "collect": trace_collect,
    "prepare": trace_prepare,
}


def kinds_of_learner(blueprint: Blueprint) -> tuple[Kind, ...]:
    """The functions that a learner uses, in the order in which they are compiled."""
    prepares = blueprint.algorithm.samples().unread_by_preparing is not None
    return ("steps", "prepare") if prepares else ("steps",)


def kinds_of(blueprint: Blueprint) -> tuple[Kind, ...]:
    """The functions that a run uses."""
    of_actor: Kind = "collect" if blueprint.steps_tensors else "act"
    return (*kinds_of_learner(blueprint), of_actor)
