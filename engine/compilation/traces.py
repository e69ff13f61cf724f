"""What is traced to make a library of each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.blueprint import Blueprint
from engine.compilation.collecting import trace_collect
from engine.compilation.library import Kind
from engine.compilation.tracing import Traced, trace_act, trace_steps
from engine.graph.cut import Cut

TRACE: Mapping[Kind, Callable[[Blueprint], Traced]] = {
    "steps": trace_steps,
    "act": trace_act,
    "collect": trace_collect,
}


def kinds_of(cut: Cut) -> tuple[Kind, ...]:
    """The functions that a run uses."""
    return ("steps", "collect" if cut.is_on_device else "act")
